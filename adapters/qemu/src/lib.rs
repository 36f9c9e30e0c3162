//! vmtask's adapter for QEMU: warm clones, checkpoints by migration streams, the guest agent.
