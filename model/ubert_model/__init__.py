"""The contract between the offline and the online side: configuration, network modules, states, bundles."""
