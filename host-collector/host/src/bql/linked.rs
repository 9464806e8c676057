//! The symbols and the relocations of an executable: what its functions are called, and where its pointers
//! lead once it is loaded.

use super::code::{Function, is_of_mutexes};
use object::elf::{
    FileHeader64, R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, R_X86_64_RELATIVE, SHN_UNDEF,
    SHT_DYNSYM, SHT_RELA, SHT_SYMTAB, STT_FUNC, STT_GNU_IFUNC,
};
use object::endian::Endianness;
use object::read::elf::{FileHeader, Rela, SectionHeader, Sym};
use object::{Error, ReadRef};
use std::collections::HashMap;

/// What the symbol tables and the relocations say.
pub(super) struct Linked<'data> {
    functions: HashMap<&'data str, Function>,
    /// The names of functions by their addresses.
    names: HashMap<u64, &'data str>,
    /// What the loader fills pointers with, by their addresses.
    pointers: HashMap<u64, Pointer<'data>>,
    symbols_count: usize,
}

#[derive(Debug, Clone, Copy)]
enum Pointer<'data> {
    /// An address of the program's own.
    To(u64),
    /// What the symbol of this name is by then.
    Named(&'data str),
}

impl<'data> Linked<'data> {
    /// Reads the table of what the program shows to others and, where it has been left in, that of all
    /// of its symbols.
    pub(super) fn read<R: ReadRef<'data>>(
        header: &'data FileHeader64<Endianness>,
        endian: Endianness,
        data: R,
    ) -> Result<Linked<'data>, Error> {
        let mut linked = Linked {
            functions: HashMap::new(),
            names: HashMap::new(),
            pointers: HashMap::new(),
            symbols_count: 0,
        };
        let sections = header.sections(endian, data)?;
        for kind in [SHT_DYNSYM, SHT_SYMTAB] {
            let table = sections.symbols(endian, data, kind)?;
            linked.symbols_count += table.len();
            for symbol in table.iter() {
                // A name that cannot be read is none that is looked for.
                let Ok(Ok(name)) = table.symbol_name(endian, symbol).map(str::from_utf8) else {
                    continue;
                };
                linked.learn(name, symbol, endian);
            }
        }
        let table = sections.symbols(endian, data, SHT_DYNSYM)?;
        for section in sections.iter().filter(|section| section.sh_type(endian) == SHT_RELA) {
            let Some((relocations, _)) = section.rela(endian, data)? else { continue };
            for relocation in relocations {
                let slot = relocation.r_offset(endian);
                let addend = relocation.r_addend(endian).cast_unsigned();
                let pointer = match relocation.r_type(endian, false) {
                    R_X86_64_RELATIVE => Pointer::To(addend),
                    R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT | R_X86_64_64 => {
                        let Some(index) = relocation.symbol(endian, false) else { continue };
                        let Ok(symbol) = table.symbol(index) else { continue };
                        let name = table.symbol_name(endian, symbol).map(str::from_utf8);
                        if symbol.st_shndx(endian) == SHN_UNDEF || symbol.st_type() == STT_FUNC {
                            let Ok(Ok(name)) = name else { continue };
                            Pointer::Named(name)
                        } else {
                            Pointer::To(symbol.st_value(endian).wrapping_add(addend))
                        }
                    }
                    _ => continue,
                };
                linked.pointers.insert(slot, pointer);
            }
        }
        Ok(linked)
    }

    fn learn(
        &mut self,
        name: &'data str,
        symbol: &impl Sym<Endian = Endianness, Word = u64>,
        endian: Endianness,
    ) {
        let address = symbol.st_value(endian);
        let is_function = matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC);
        if !is_function || address == 0 {
            return;
        }
        // What it has of another file is at an address only where a stub stands for it.
        let is_defined = symbol.st_shndx(endian) != SHN_UNDEF;
        if is_defined {
            let function = Function { address, size_bytes: symbol.st_size(endian) };
            self.functions.entry(name).or_insert(function);
        }
        // The part of a function that a compiler made a function of has no name of its own: GCC
        // appends .part.0, .constprop.0, .cold.
        if !name.contains('.') {
            let known = self.names.entry(address).or_insert(name);
            if is_of_mutexes(name) {
                *known = name;
            }
        }
    }

    /// The function of this name, if the program has it.
    pub(super) fn function(&self, name: &str) -> Option<Function> {
        self.functions.get(name).copied()
    }

    /// The name of the function at an address.
    pub(super) fn name(&self, address: u64) -> Option<&'data str> {
        self.names.get(&address).copied()
    }

    /// The address that a pointer holds once the program is loaded, if it is one of the program's own.
    pub(super) fn pointer(&self, address: u64) -> Option<u64> {
        match self.pointers.get(&address)? {
            Pointer::To(target) => Some(*target),
            Pointer::Named(_) => None,
        }
    }

    /// The function to which a pointer leads once the program is loaded.
    pub(super) fn linked_name(&self, pointer: u64) -> Option<&'data str> {
        match self.pointers.get(&pointer)? {
            Pointer::Named(name) => Some(name),
            Pointer::To(address) => self.name(*address),
        }
    }

    /// How many symbols the program has.
    pub(super) fn symbols_count(&self) -> usize {
        self.symbols_count
    }
}
