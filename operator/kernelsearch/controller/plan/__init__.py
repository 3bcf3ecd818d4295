"""Pure: from what was observed and the time to what should be. One module a kind; nothing here reads or writes."""
