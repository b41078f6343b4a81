"""Control of jobs: read, cancel, retry, delete and update them."""
