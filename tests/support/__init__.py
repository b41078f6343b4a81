"""What the tests stand on: servers, a proxy, waiting, and checks for leaks."""
