"""What is kept up to date behind the servers' backs, by one leader: certificates, webhook configuration, status, expiry."""
