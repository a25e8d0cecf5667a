"""Requirements C: questions answered from documents, in the background, with their sources."""
