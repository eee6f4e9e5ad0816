"""Online: a bundle and a store of encoder states in; ratings over HTTP out."""
