// Search shows a piece of every page it finds. Opened as a file, a page may not read others: show titles only.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
