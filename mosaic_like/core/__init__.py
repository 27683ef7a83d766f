"""What a cluster means: states that decide, without sockets, loop or clock."""
