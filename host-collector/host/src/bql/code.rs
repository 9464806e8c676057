//! What a function hands to the functions that it calls, read from its instructions.
//!
//! A function's paths are walked one after the other, and of each register it is known which address
//! it holds, if it holds one. That is enough for what compilers make of a lock that is a variable: the
//! address comes into a register by `lea`, by `mov` or from the GOT, goes through others, and is in
//! `rdi`, the first argument of the System V ABI, where another function is called or jumped to. What
//! is kept on the stack is not followed.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};
use std::collections::{BTreeSet, HashSet};

/// A program as far as its code is read here. All addresses are link-time addresses.
pub(super) trait Program {
    /// The bytes of code from `address` on, at most `bytes_max`; none where no code is.
    fn code(&self, address: u64, bytes_max: u64) -> &[u8];
    /// What a pointer holds that the loader fills in and nobody changes after it, as the GOT's are.
    fn constant_pointer(&self, address: u64) -> Option<u64>;
    /// Whether a number among the instructions may be an address: not where the program can be loaded
    /// anywhere.
    fn has_fixed_addresses(&self) -> bool;
    /// The name of the function at an address; that of a mutex's function, where it has several.
    fn name(&self, address: u64) -> Option<&str>;
    /// The name of the function to which the pointer at this address leads, as the procedure linkage
    /// table's do.
    fn linked_name(&self, pointer: u64) -> Option<&str>;
}

/// A function.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    pub address: u64,
    /// 0 if it is not known.
    pub size_bytes: u64,
}

impl Function {
    /// Where it ends, if that is known.
    fn end(self) -> Option<u64> {
        (self.size_bytes > 0).then(|| self.address.saturating_add(self.size_bytes))
    }
}

/// Who is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Callee {
    /// One of these names.
    Named(String),
    /// A function of the program without a name: it is called from one file only, or it is a part
    /// that the compiler made of another one.
    Local(u64),
    /// Whoever a pointer names at run time.
    Pointer,
}

/// An address that a function hands on as the first argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handed {
    pub address: u64,
    pub callee: Callee,
}

/// No more of a program than this is walked for one function: the functions looked at have some twenty
/// instructions.
const STEPS_MAX: usize = 4000;
/// Functions through which compilers call pointers, against speculation: GCC's `-mindirect-branch`, LLVM's
/// `-mretpoline`.
const THUNKS: [&str; 2] = ["__x86_indirect_thunk", "__llvm_retpoline"];
/// The longest instruction of x86 (Intel SDM volume 2, 2.3.11).
const INSTRUCTION_BYTES_MAX: u64 = 15;
/// A stub of the procedure linkage table has at most three instructions: `endbr64`, the jump, and what
/// fills up.
const STUB_INSTRUCTIONS_MAX: usize = 3;

/// Every address that `function` may hand to another one. With `is_followed` also what the functions
/// without names hand on that it calls or jumps to, as link-time optimisation makes them.
pub(super) fn handed(
    program: &dyn Program,
    function: Function,
    is_followed: bool,
) -> BTreeSet<Handed> {
    let mut walk = Walk {
        program,
        is_followed,
        handed: BTreeSet::new(),
        open: vec![Place {
            ip: function.address,
            within: function,
            registers: Registers::default(),
        }],
        seen: HashSet::new(),
        infos: InstructionInfoFactory::new(),
    };
    for _ in 0..STEPS_MAX {
        let Some(place) = walk.open.pop() else { break };
        if walk.seen.insert((place.ip, place.registers)) {
            walk.step(place);
        }
    }
    walk.handed
}

/// Which address each general register holds, where it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Registers([Option<u64>; 16]);

impl Registers {
    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(number(register)?).copied().flatten()
    }

    fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(place) = number(register).and_then(|number| self.0.get_mut(number)) {
            *place = value;
        }
    }

    /// What a called function may change (System V ABI for x86-64, 3.2.1).
    fn forget_callers(&mut self) {
        use Register::{R8, R9, R10, R11, RAX, RCX, RDI, RDX, RSI};
        for register in [RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11] {
            self.set(register, None);
        }
    }
}

/// The number of the 64-bit register that this one is a part of.
fn number(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

/// Where a path has come to.
#[derive(Clone, Copy)]
struct Place {
    ip: u64,
    within: Function,
    registers: Registers,
}

struct Walk<'p> {
    program: &'p dyn Program,
    is_followed: bool,
    handed: BTreeSet<Handed>,
    /// Where paths go on.
    open: Vec<Place>,
    seen: HashSet<(u64, Registers)>,
    infos: InstructionInfoFactory,
}

impl Walk<'_> {
    fn step(&mut self, place: Place) {
        let left_bytes = place.within.end().map_or(INSTRUCTION_BYTES_MAX, |end| {
            end.saturating_sub(place.ip).min(INSTRUCTION_BYTES_MAX)
        });
        let Some(instruction) = decode(self.program, place.ip, left_bytes) else { return };
        let mut after = Place { ip: instruction.next_ip(), ..place };
        match instruction.flow_control() {
            FlowControl::Next => {
                self.change(&instruction, &mut after.registers);
                self.open.push(after);
            }
            FlowControl::UnconditionalBranch => self.branch(&instruction, &place),
            FlowControl::ConditionalBranch => {
                self.branch(&instruction, &place);
                self.open.push(after);
            }
            FlowControl::IndirectBranch => self.hand(&place, self.callee(&instruction)),
            FlowControl::Call | FlowControl::IndirectCall => {
                let callee = self.callee(&instruction);
                if let (true, Callee::Local(target)) = (self.is_followed, &callee) {
                    self.enter(*target, &place);
                }
                self.hand(&place, callee);
                after.registers.forget_callers();
                self.open.push(after);
            }
            // A system call, or the like.
            FlowControl::XbeginXabortXend => self.open.push(after),
            FlowControl::Return | FlowControl::Interrupt | FlowControl::Exception => {}
        }
    }

    /// A jump within the function goes on there; one out of it is a call that returns to the caller.
    fn branch(&mut self, instruction: &Instruction, place: &Place) {
        let target = instruction.near_branch_target();
        let end = place.within.end();
        if end.is_some_and(|end| (place.within.address..end).contains(&target)) {
            self.open.push(Place { ip: target, ..*place });
            return;
        }
        let callee = self.callee(instruction);
        if let (true, Callee::Local(target)) = (self.is_followed, &callee) {
            self.enter(*target, place);
        }
        // Within a function whose length is not known, such a jump is one of its own.
        if end.is_some() || !matches!(callee, Callee::Local(_)) {
            self.hand(place, callee);
        }
    }

    /// Goes on in a function without a name, of which no length is known either.
    fn enter(&mut self, target: u64, place: &Place) {
        let within = Function { address: target, size_bytes: 0 };
        self.open.push(Place { ip: target, within, registers: place.registers });
    }

    fn hand(&mut self, place: &Place, callee: Callee) {
        if let Some(address) = place.registers.get(Register::RDI) {
            self.handed.insert(Handed { address, callee });
        }
    }

    /// Who is called or jumped to.
    fn callee(&self, instruction: &Instruction) -> Callee {
        if instruction.op_count() == 1 && instruction.op0_kind() == OpKind::NearBranch64 {
            let target = instruction.near_branch_target();
            return match self.program.name(target).or_else(|| self.stub(target)) {
                Some(name) if THUNKS.iter().any(|thunk| name.starts_with(thunk)) => Callee::Pointer,
                Some(name) => Callee::Named(name.to_owned()),
                None => Callee::Local(target),
            };
        }
        let linked = rip_relative(instruction).and_then(|slot| self.program.linked_name(slot));
        linked.map_or(Callee::Pointer, |name| Callee::Named(name.to_owned()))
    }

    /// The function to which a stub of the procedure linkage table leads.
    fn stub(&self, address: u64) -> Option<&str> {
        let mut ip = address;
        for _ in 0..STUB_INSTRUCTIONS_MAX {
            let instruction = decode(self.program, ip, INSTRUCTION_BYTES_MAX)?;
            match instruction.flow_control() {
                FlowControl::Next => ip = instruction.next_ip(),
                FlowControl::IndirectBranch => {
                    return self.program.linked_name(rip_relative(&instruction)?);
                }
                _ => return None,
            }
        }
        None
    }

    /// What an instruction makes of the registers.
    fn change(&mut self, instruction: &Instruction, registers: &mut Registers) {
        let value = self.value(instruction, registers);
        for used in self.infos.info(instruction).used_registers() {
            let is_written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
            if is_written {
                registers.set(used.register(), None);
            }
        }
        if let Some(value) = value {
            registers.set(instruction.op0_register(), Some(value));
        }
    }

    /// What an instruction puts into its first operand, a register of 64 or 32 bits, if that may be an
    /// address. Writing the lower half of a register clears the upper one.
    fn value(&self, instruction: &Instruction, registers: &Registers) -> Option<u64> {
        let register = instruction.op0_register();
        let half = |value: u64| if register.is_gpr32() { value & 0xffff_ffff } else { value };
        if instruction.op_count() != 2 || !(register.is_gpr64() || register.is_gpr32()) {
            return None;
        }
        match (instruction.mnemonic(), instruction.op1_kind()) {
            (Mnemonic::Lea, _) => effective_address(self.program, instruction, registers).map(half),
            (Mnemonic::Mov, OpKind::Register) => {
                registers.get(instruction.op1_register()).map(half)
            }
            (Mnemonic::Mov, OpKind::Memory) if register.is_gpr64() => {
                self.program.constant_pointer(rip_relative(instruction)?)
            }
            (Mnemonic::Mov, OpKind::Memory) => None,
            (Mnemonic::Mov, _) if self.program.has_fixed_addresses() => {
                Some(half(instruction.immediate(1)))
            }
            _ => None,
        }
    }
}

/// What may be a mutex's function by its name: those of QEMU (util/qemu-thread-posix.c), of its profiler
/// (util/qsp.c), of POSIX.
pub(super) fn is_of_mutexes(name: &str) -> bool {
    name.contains("mutex")
}

fn decode(program: &dyn Program, ip: u64, bytes_max: u64) -> Option<Instruction> {
    let code = program.code(ip, bytes_max);
    let instruction = Decoder::with_ip(64, code, ip, DecoderOptions::NONE).decode();
    (instruction.code() != Code::INVALID).then_some(instruction)
}

/// The address of an operand in memory that is named by its distance, or by the address itself.
fn rip_relative(instruction: &Instruction) -> Option<u64> {
    let is_memory = (0..instruction.op_count()).any(|at| instruction.op_kind(at) == OpKind::Memory);
    let is_plain = instruction.memory_base() == Register::RIP
        || instruction.memory_base() == Register::None
            && instruction.memory_index() == Register::None;
    (is_memory && is_plain && instruction.segment_prefix() == Register::None)
        .then(|| instruction.memory_displacement64())
}

/// The address that a `lea` computes, from what is known.
fn effective_address(
    program: &dyn Program,
    instruction: &Instruction,
    registers: &Registers,
) -> Option<u64> {
    if instruction.memory_index() != Register::None {
        return None;
    }
    let displacement = instruction.memory_displacement64();
    match instruction.memory_base() {
        // iced has added the address of the next instruction.
        Register::RIP | Register::EIP => Some(displacement),
        Register::None => program.has_fixed_addresses().then_some(displacement),
        base => Some(registers.get(base)?.wrapping_add(displacement)),
    }
}
