// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! A program in C, compiled, with what is left to its loader done: maps, constants, and where the running kernel
//! keeps what is read (CO-RE, Documentation/bpf/llvm_reloc.rst).

use super::super::assembly::Instruction;
use btfparse::{Error, ErrorKind, Offset, Readable, TypeInformation, TypeVariant};
use object::{Object as _, ObjectSection, ObjectSymbol, RelocationTarget};
use std::path::Path;
use std::process::Command;

/// `BPF_CORE_FIELD_BYTE_OFFSET` and `BPF_CORE_FIELD_EXISTS` of include/uapi/linux/bpf.h.
const BYTE_OFFSET: u32 = 0;
const EXISTS: u32 = 2;
/// What libbpf puts in the place of what cannot be: a call of no function.
const POISON: i32 = 195_896_080;

pub(super) struct Object(Vec<u8>);

/// The constants that a loader sets.
pub(super) struct Constants {
    places: Vec<(String, usize)>,
    pub(super) bytes: Vec<u8>,
}

impl Constants {
    /// Sets one, if the program has it.
    pub(super) fn set(&mut self, name: &str, value: &[u8]) {
        if let Some((_, at)) = self.places.iter().find(|(known, _)| known == name) {
            self.bytes[*at..*at + value.len()].copy_from_slice(value);
        }
    }
}

struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let bytes = self.0.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or_else(|| Error::new(ErrorKind::IOError, "the end"))?);
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Object {
    pub(super) fn compile(name: &str) -> Object {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
        let out = tempfile::NamedTempFile::new().unwrap();
        let mut clang = Command::new("clang");
        clang.args(["-target", "bpf", "-mcpu=v2", "-O2", "-g", "-Wall", "-Werror", "-c", "-o"]);
        let source = folder.join(name).with_extension("bpf.c");
        let status = clang.arg(out.path()).arg(source).status();
        assert!(status.expect("clang: .ci/install-needs test").success());
        Object(std::fs::read(out.path()).unwrap())
    }

    pub(super) fn constants(&self) -> Constants {
        let file = object::File::parse(&*self.0).unwrap();
        let section = file.section_by_name(".rodata").unwrap();
        let here = file.symbols().filter(|symbol| symbol.section_index() == Some(section.index()));
        let places =
            here.map(|symbol| (symbol.name().unwrap().to_owned(), symbol.address() as usize));
        Constants { places: places.collect(), bytes: section.data().unwrap().to_vec() }
    }

    /// The instructions, once it is said which map a symbol of a section is.
    pub(super) fn link(&self, map_of: impl Fn(&str, &str) -> i32) -> Vec<Instruction> {
        let file = object::File::parse(&*self.0).unwrap();
        let section =
            file.sections().find(|section| section.name().unwrap().starts_with("tp_btf/"));
        let section = section.unwrap();
        let (words, _) = section.data().unwrap().as_chunks::<8>();
        let mut code: Vec<Instruction> = words
            .iter()
            .map(|&[opcode, registers, low, high, ..]| (opcode, registers, [low, high]))
            .zip(words)
            .map(|((opcode, registers, offset), all)| Instruction {
                opcode,
                registers,
                offset: i16::from_le_bytes(offset),
                immediate: word(all, 4).cast_signed(),
            })
            .collect();
        for (at, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { panic!("no symbol") };
            let symbol = file.symbol_by_index(index).unwrap();
            let of = file.section_by_index(symbol.section_index().unwrap()).unwrap();
            let at = at as usize / 8;
            let is_value = of.name().unwrap() != ".maps";
            code[at].registers |= if is_value { 2 << 4 } else { 1 << 4 };
            if is_value {
                code[at + 1].immediate = code[at].immediate + symbol.address() as i32;
            }
            code[at].immediate = map_of(of.name().unwrap(), symbol.name().unwrap());
        }
        self.fit(section.name().unwrap(), &mut code);
        code
    }

    /// Sets what depends on the running kernel's types.
    fn fit(&self, section: &str, code: &mut [Instruction]) {
        let file = object::File::parse(&*self.0).unwrap();
        let data = |name| file.section_by_name(name).unwrap().data().unwrap();
        let (types, more) = (data(".BTF"), data(".BTF.ext"));
        // `struct btf_header` and `struct btf_ext_header` of the kernel.
        let texts = &types[(word(types, 4) + word(types, 16)) as usize..];
        let text = |at: u32| {
            let bytes = texts[at as usize..].split(|byte| *byte == 0).next().unwrap();
            std::str::from_utf8(bytes).unwrap()
        };
        let start = (word(more, 4) + word(more, 24)) as usize;
        let places = &more[start..start + word(more, 28) as usize];
        assert_eq!((word(places, 0), text(word(places, 4))), (16, section));
        let here = TypeInformation::new(&Bytes(types.to_vec())).unwrap();
        let kernel = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
        let kernel = TypeInformation::new(&Bytes(kernel)).unwrap();
        let (records, rest) = places[12..].as_chunks::<16>();
        assert_eq!((records.len(), rest.len()), (word(places, 8) as usize, 0));
        for record in records {
            let [at, of, path, kind] = [0, 4, 8, 12].map(|at| word(record, at));
            let (name, path) = names(&here, of, text(path));
            let id = kernel.id_of(name.split("___").next().unwrap());
            let found = match id.map(|id| kernel.offset_of(id, &path)) {
                Some(Ok((_, Offset::ByteOffset(offset)))) => Some(offset.cast_signed()),
                _ => None,
            };
            let code = &mut code[at as usize / 8];
            match (kind, found) {
                (EXISTS, _) => code.immediate = found.is_some().into(),
                (BYTE_OFFSET, Some(offset)) if code.opcode & 7 == 1 => {
                    code.offset = i16::try_from(offset).unwrap();
                }
                (BYTE_OFFSET, Some(offset)) => code.immediate = offset,
                (BYTE_OFFSET, None) => {
                    *code = Instruction { opcode: 0x85, immediate: POISON, ..Default::default() };
                }
                _ => panic!("relocation {kind} of {name}.{path} is not known"),
            }
        }
    }
}

/// The type and the path of fields that `0:3:1` is.
fn names(types: &TypeInformation, mut id: u32, path: &str) -> (String, String) {
    let name = types.name_of(id).unwrap();
    let mut fields = Vec::new();
    for place in path.split(':').skip(1) {
        match types.from_id(id) {
            Some(TypeVariant::Struct(of)) => {
                let member = &of.member_list()[place.parse::<usize>().unwrap()];
                fields.push(member.name().unwrap());
                id = member.tid();
            }
            // The first element is where the array is.
            Some(TypeVariant::Array(_)) if place == "0" => {}
            other => panic!("{name} {path}: {other:?}"),
        }
    }
    (name, fields.join("."))
}
