// Everything stands: draw it.

changed();
