//! `vslice-agent`: the guest side of vslice.

fn main() {}
