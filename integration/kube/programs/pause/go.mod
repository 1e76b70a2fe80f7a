module culvert.invalid/pause

go 1.24
