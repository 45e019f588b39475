package statedir

// StoreName is the file of the store in the state folder.
const StoreName = "gateway.db"
