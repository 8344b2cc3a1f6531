module pilothouse.local/pause

go 1.26.0
