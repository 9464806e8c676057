//! Labs: guests that vslice starts itself, by a plan, and takes down again without a trace.
//!
//! ```text
//! plan, quantity     plans, checked once; what is launched, and what each guest does
//! launch, qemu, process, disk, image, vsock, accelerator, kvm_answer, tools   guests of a plan
//! run                one run of a plan: guests up, recording on, workload through, everything down
//! experiment         runs of several conditions in turn
//! role_assignment    which VM of a plan each VM is that runs already
//! emit               a plan's VMs for other QEMUs and for libvirt
//! doctor, doctor_vm, doctor_evidence, diagnosis, finding   what this host lacks, and what to do
//! ```

pub mod accelerator;
pub mod diagnosis;
pub mod disk;
pub mod doctor;
mod doctor_asked;
mod doctor_evidence;
pub mod doctor_vm;
pub mod emit;
pub mod experiment;
pub mod finding;
pub mod image;
mod kvm_answer;
pub mod launch;
pub mod plan;
pub mod process;
pub mod qemu;
pub mod quantity;
pub mod role_assignment;
pub mod run;
pub mod tools;
pub mod vsock;

pub use role_assignment::RoleAssignment;
