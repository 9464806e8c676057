//! Where a tracepoint's fields lie, from the text of its `format` file. Pure.
//!
//! Nothing about a record is assumed: its id, and the offsets and sizes of its fields are what the
//! running kernel says.

/// Where one field lies in a tracepoint's raw data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    offset: usize,
    size: usize,
}

impl Field {
    /// The field's bytes in `raw`, or `None` where the record is too short.
    #[must_use]
    pub fn bytes<'a>(&self, raw: &'a [u8]) -> Option<&'a [u8]> {
        raw.get(self.offset..)?.get(..self.size)
    }

    /// Where it begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The field as a number without a sign.
    #[must_use]
    pub fn number(&self, raw: &[u8]) -> Option<u64> {
        let bytes = self.bytes(raw)?;
        match bytes.len() {
            1 => bytes.first().copied().map(u64::from),
            2 => Some(crate::bytes::u16_at(bytes, 0)?.into()),
            4 => Some(crate::bytes::u32_at(bytes, 0)?.into()),
            8 => crate::bytes::u64_at(bytes, 0),
            _ => None,
        }
    }
}

/// The text of a `format` file, taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Format<'a> {
    text: &'a str,
}

impl<'a> Format<'a> {
    /// A `format` file's text.
    #[must_use]
    pub fn new(text: &'a str) -> Format<'a> {
        Format { text }
    }

    /// The tracepoint's id.
    ///
    /// # Errors
    /// That there is none.
    pub fn id(&self) -> Result<u16, String> {
        let id = self.text.lines().find_map(|line| line.strip_prefix("ID:"));
        id.and_then(|id| id.trim().parse().ok()).ok_or_else(|| "no ID".into())
    }

    /// A field by its name.
    ///
    /// # Errors
    /// That there is none that a record could hold.
    pub fn field(&self, name: &str) -> Result<Field, String> {
        let field = self.text.lines().find_map(|line| field_named(name, line));
        field.ok_or_else(|| format!("no field {name}"))
    }

    /// What it says of how a record is printed.
    ///
    /// # Errors
    /// That it says nothing.
    pub fn print_fmt(&self) -> Result<&'a str, String> {
        let start = self.text.find("print fmt:").ok_or("no print fmt")?;
        Ok(&self.text[start..])
    }
}

/// Reads `\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;` if it is the field `name`.
fn field_named(name: &str, line: &str) -> Option<Field> {
    let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
    let declared = parts.next()?.rsplit([' ', '*']).next()?;
    if declared.split('[').next()? != name {
        return None;
    }
    // A record's own size is 16 bits wide, so none of them is beyond that.
    let offset: u16 = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
    let size: u16 = parts.next()?.strip_prefix("size:")?.parse().ok()?;
    Some(Field { offset: offset.into(), size: size.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: x\nID: 42\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\
        \tfield:__data_loc char[] cmd;\toffset:24;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"%s\", REC->comm\n";

    #[test]
    fn fields_are_found_by_their_names() {
        let format = Format::new(TEXT);
        assert_eq!(format.id(), Ok(42));
        assert_eq!(format.field("common_type"), Ok(Field { offset: 0, size: 2 }));
        assert_eq!(format.field("comm"), Ok(Field { offset: 8, size: 16 }));
        assert_eq!(format.field("cmd"), Ok(Field { offset: 24, size: 4 }));
        assert_eq!(format.field("mm").unwrap_err(), "no field mm");
        assert_eq!(format.print_fmt(), Ok("print fmt: \"%s\", REC->comm\n"));
        assert_eq!(Format::new("").id().unwrap_err(), "no ID");
    }

    #[test]
    fn a_field_that_no_record_can_hold_is_none_of_the_format() {
        let endless = TEXT.replace("offset:24;", "offset:18446744073709551615;");
        assert_eq!(Format::new(&endless).field("cmd").unwrap_err(), "no field cmd");
    }

    #[test]
    fn a_field_outside_the_record_is_none() {
        let field = Field { offset: 4, size: 4 };
        assert_eq!(field.number(&[0; 7]), None);
        assert_eq!(field.number(&[0; 8]), Some(0));
        assert_eq!(Field { offset: 9, size: 4 }.number(&[0; 8]), None);
    }
}
