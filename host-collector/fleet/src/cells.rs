//! The cells of a table: what is told of each, and how they are kept until there are enough of them.

use crate::schema::{Column, Kind};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedRowGroupWriter;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

/// One cell of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// It is not known, or there is none.
    None,
    /// A number of something, nanoseconds or others.
    Integer(i64),
    /// A ratio.
    Real(f64),
    /// Whether something is so.
    Flag(bool),
    /// A text; what is no letter in it is a question mark already.
    Text(&'a str),
    /// A date in microseconds since 1970.
    Time(i64),
}

impl Cell<'_> {
    /// A number; what is larger than any table can have is the largest that it can have.
    #[must_use]
    pub fn count(number: u64) -> Cell<'static> {
        Cell::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// The same of what may be unknown.
    #[must_use]
    pub fn maybe(number: Option<u64>) -> Cell<'static> {
        number.map_or(Cell::None, Cell::count)
    }
}

/// A text that may be unknown.
impl<'a> From<Option<&'a str>> for Cell<'a> {
    fn from(text: Option<&'a str>) -> Cell<'a> {
        text.map_or(Cell::None, Cell::Text)
    }
}

/// Cells of one column, and of each row whether it has one: 1 or 0, Parquet's definition level.
#[derive(Debug)]
pub(crate) struct Cells {
    values: Values,
    are_there: Vec<i16>,
}

#[derive(Debug)]
enum Values {
    Integers(Vec<i64>),
    Reals(Vec<f64>),
    Flags(Vec<bool>),
    /// Places among the table's [`Texts`].
    Texts(Vec<u32>),
}

/// The texts of the rows that are gathered, each once.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    places: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl Texts {
    fn place(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        // There are no more texts than cells, which are bounded.
        let place = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = Arc::from(text);
        self.places.insert(Arc::clone(&text), place);
        self.texts.push(text);
        place
    }

    /// As Parquet takes them, in the order of their places.
    pub(crate) fn bytes(&self) -> Vec<ByteArray> {
        self.texts.iter().map(|text| ByteArray::from(text.as_bytes().to_vec())).collect()
    }
}

impl Cells {
    pub(crate) fn of(column: &Column) -> Cells {
        let values = match column.kind {
            Kind::Integer | Kind::Time => Values::Integers(Vec::new()),
            Kind::Real => Values::Reals(Vec::new()),
            Kind::Flag => Values::Flags(Vec::new()),
            Kind::Text => Values::Texts(Vec::new()),
        };
        Cells { values, are_there: Vec::new() }
    }

    /// What a cell takes in memory at most, what is written of it included.
    pub(crate) fn bytes_of_one(&self) -> usize {
        let level = size_of::<i16>();
        level
            + match self.values {
                Values::Integers(_) => size_of::<i64>(),
                Values::Reals(_) => size_of::<f64>(),
                Values::Flags(_) => size_of::<bool>(),
                Values::Texts(_) => size_of::<u32>(),
            }
    }

    /// A cell of another kind than the column's is none: the tests of the tables see it.
    pub(crate) fn push(&mut self, cell: Cell<'_>, texts: &mut Texts) {
        let is_there = match (&mut self.values, cell) {
            (Values::Integers(values), Cell::Integer(value) | Cell::Time(value)) => {
                values.push(value);
                true
            }
            (Values::Reals(values), Cell::Real(value)) => {
                values.push(value);
                true
            }
            (Values::Flags(values), Cell::Flag(value)) => {
                values.push(value);
                true
            }
            (Values::Texts(values), Cell::Text(value)) => {
                values.push(texts.place(value));
                true
            }
            (_, cell) => {
                debug_assert_eq!(cell, Cell::None, "of another kind than its column");
                false
            }
        };
        self.are_there.push(is_there.into());
    }

    pub(crate) fn clear(&mut self) {
        self.are_there.clear();
        match &mut self.values {
            Values::Integers(values) => values.clear(),
            Values::Reals(values) => values.clear(),
            Values::Flags(values) => values.clear(),
            Values::Texts(values) => values.clear(),
        }
    }

    pub(crate) fn write(
        &self,
        group: &mut SerializedRowGroupWriter<'_, File>,
        texts: &[ByteArray],
    ) -> Result<(), ParquetError> {
        let missing = || ParquetError::General("a column more than the schema has".to_owned());
        let mut column = group.next_column()?.ok_or_else(missing)?;
        let levels = Some(self.are_there.as_slice());
        match &self.values {
            Values::Integers(values) => {
                column.typed::<Int64Type>().write_batch(values, levels, None)
            }
            Values::Reals(values) => column.typed::<DoubleType>().write_batch(values, levels, None),
            Values::Flags(values) => column.typed::<BoolType>().write_batch(values, levels, None),
            Values::Texts(places) => {
                let found = places.iter().filter_map(|place| texts.get(*place as usize).cloned());
                let values: Vec<ByteArray> = found.collect();
                column.typed::<ByteArrayType>().write_batch(&values, levels, None)
            }
        }?;
        column.close()
    }
}
