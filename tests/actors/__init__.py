"""The actor layer against OTP's rules."""
