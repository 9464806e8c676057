//! What the bits of `prev_state` mean, from the print format of `sched_switch`.
//!
//! The kernel prints the state as
//! `(REC->prev_state & MASK) ? __print_flags(REC->prev_state & MASK, "|", { 0x01, "S" }, ...) : "R",
//! REC->prev_state & PLUS ? "+" : ""`, where MASK and PLUS are C expressions of numbers. PLUS is
//! `TASK_REPORT_MAX`: set when the thread was preempted (`__trace_sched_switch_state`).

use vslice_core::host_event::PrevState;

/// The bits of `prev_state` on the running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::perf) struct StateBits {
    /// The bits that say why the thread does not run; 0 there means that it is runnable.
    mask: u64,
    /// The bit of a thread that was preempted.
    preempted: u64,
    /// Each bit and the letter that is printed for it, the lowest bit first.
    letters: Vec<(u64, char)>,
}

impl StateBits {
    /// From the text after `print fmt:`; the error says what is missing.
    pub(super) fn parse(print_fmt: &str) -> Result<StateBits, String> {
        let flags = between(print_fmt, "__print_flags(", "\"R\"").ok_or("no __print_flags")?;
        let mask = between(flags, "prev_state &", ", \"|\"").ok_or("no mask of prev_state")?;
        let before_plus = print_fmt.split("? \"+\"").next().unwrap_or_default();
        let plus = before_plus.rsplit("prev_state &").next().unwrap_or_default();
        if !print_fmt.contains("? \"+\"") {
            return Err("no mark for preempted threads".into());
        }
        let mut letters = Vec::new();
        for pair in flags.split('{').skip(1) {
            let pair = pair.split('}').next().unwrap_or_default();
            let (bit, name) = pair.split_once(',').ok_or("a state without a name")?;
            let letter = name.trim().trim_matches('"').chars().next().ok_or("an empty state")?;
            letters.push((evaluate(bit)?, letter));
        }
        letters.sort_unstable();
        Ok(StateBits { mask: evaluate(mask)?, preempted: evaluate(plus)?, letters })
    }

    /// The bit of a thread that was preempted.
    pub(in crate::perf) fn preempted(&self) -> u64 {
        self.preempted
    }

    /// The state in which a thread left.
    pub(in crate::perf) fn state(&self, value: u64) -> PrevState {
        if value & self.preempted != 0 {
            return PrevState::RunnablePreempted;
        }
        if value & self.mask == 0 {
            return PrevState::Runnable;
        }
        let set = self.letters.iter().filter(|(bit, _)| value & bit != 0);
        let known = set.filter_map(|(_, letter)| match letter {
            'S' => Some(PrevState::Sleep),
            'D' => Some(PrevState::DiskSleep),
            'T' | 't' => Some(PrevState::Stopped),
            'X' | 'x' | 'Z' => Some(PrevState::Dead),
            _ => None,
        });
        let masked = u16::try_from(value & self.mask).unwrap_or(u16::MAX);
        known.into_iter().next().unwrap_or(PrevState::Other(masked))
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    Some(&text[start..start + length])
}

/// The value of a C expression of numbers, parentheses and `+ - << |`.
fn evaluate(text: &str) -> Result<u64, String> {
    // Unbalanced parentheses of the surrounding text may follow the expression.
    let mut parser = Parser { rest: text.trim(), depth: 0 };
    let value = parser.or()?;
    if parser.rest.trim_matches([')', ' ']).is_empty() {
        Ok(value)
    } else {
        Err(format!("the expression {text:?} is not understood"))
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: u32,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<u64, String> {
        let mut value = self.shift()?;
        while self.take("|") {
            value |= self.shift()?;
        }
        Ok(value)
    }

    fn shift(&mut self) -> Result<u64, String> {
        let mut value = self.sum()?;
        while self.take("<<") {
            let places = self.sum()?;
            let places = u32::try_from(places).map_err(|_| "a shift is too wide")?;
            value = value.checked_shl(places).ok_or("a shift is too wide")?;
        }
        Ok(value)
    }

    fn sum(&mut self) -> Result<u64, String> {
        let mut value = self.atom()?;
        loop {
            if self.take("+") {
                value = value.wrapping_add(self.atom()?);
            } else if self.take("-") {
                value = value.wrapping_sub(self.atom()?);
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Result<u64, String> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > 50 {
                return Err("parentheses are nested too deep".into());
            }
            let value = self.or()?;
            self.depth -= 1;
            return if self.take(")") { Ok(value) } else { Err("no closing parenthesis".into()) };
        }
        let length = self.rest.find(|letter: char| !letter.is_ascii_alphanumeric());
        let (digits, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
        self.rest = rest.trim_start();
        let value = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        value.map_err(|_| format!("{digits:?} is not a number"))
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_have_their_c_value() {
        for (text, value) in [
            ("2048", 2048),
            ("1024-1)", 1023),
            ("(((0x00000000 | 0x00000001 | 0x00000040) + 1) << 1)", 0x84),
            ("1 | 2 << 1 + 1", 9),
            (" 8 - 2 - 1 ", 5),
        ] {
            assert_eq!(evaluate(text), Ok(value), "{text}");
        }
        for text in ["", "x", "1 << 64", "(1", "1 * 2", "0xg", &"(".repeat(1000)] {
            assert!(evaluate(text).is_err(), "{text}");
        }
    }
}
