//! Labs: guests that vslice starts itself, by a plan, and takes down again without a trace.

pub mod accelerator;
pub mod diagnosis;
pub mod disk;
pub mod doctor;
mod doctor_evidence;
pub mod doctor_vm;
pub mod emit;
pub mod finding;
pub mod image;
mod kvm_answer;
pub mod launch;
pub mod plan;
pub mod process;
pub mod qemu;
pub mod quantity;
pub mod tools;
pub mod vsock;
