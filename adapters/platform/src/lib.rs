//! Platforms of vmtask: the pinned guest image, its XML definition, building and verifying it.
