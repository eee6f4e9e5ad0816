"""The contract that the offline and the online side share: configuration, modules, states, bundles."""
