// Everything stands: draw it.

chosen("copy") && chosen("copy").addEventListener("click", () => navigator.clipboard.writeText(chosen("command").textContent));
changed();
