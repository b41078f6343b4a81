"""Programs that show how oban_actors is used; `make demo` runs the first of them."""
