"""What a host may call on an instance, by subject; `Oban` is made of these."""
