//! One table of one run: rows are gathered column by column, and written when there are enough of them.

use crate::cells::{Cells, Texts};
use crate::schema::{Column, Kind, Table};
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::cells::Cell;

/// The schema that every file names, as `vslice.schema`.
pub const SCHEMA: &str = "vslice.fleet/1";

/// Bytes of rows that a table gathers before it writes them.
const GATHERED_BYTES: usize = 4 << 20;

/// Row groups of a file: its end repeats something of each, and has to be in memory until then.
const ROW_GROUPS_MAX: usize = 64;

/// What is added to the name of a file that is not whole yet, so that no engine takes it for one of the table.
const PARTIAL: &str = ".partial";

/// Why a table is not there.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A file or folder cannot be made.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Rows cannot be written.
    #[error("{}: {source}", .path.display())]
    Parquet {
        /// Into which file.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
}

/// Writes the rows of one run into `<folder>/<run>.<number>.parquet`, which have these names once all of them are whole.
#[derive(Debug)]
pub struct TableWriter {
    name: &'static str,
    schema: TypePtr,
    properties: Arc<WriterProperties>,
    columns: Vec<Cells>,
    texts: Texts,
    /// Rows that are gathered.
    gathered: usize,
    /// As many as are gathered at most.
    gathered_max: usize,
    row_groups_max: usize,
    /// Rows that were told.
    rows: u64,
    open: Option<Part>,
    parts: Parts,
}

/// A table whose files are written, and have their names once it is committed.
#[derive(Debug)]
pub struct WholeTable {
    /// The table.
    pub name: &'static str,
    /// How many rows it has.
    pub rows: u64,
    parts: Parts,
}

/// The files of one table and run. Without their names they are nothing, and go when this goes.
#[derive(Debug, Default)]
struct Parts {
    folder: PathBuf,
    run: String,
    /// How many there are, the open one included.
    count: usize,
}

/// A file that is being written.
struct Part {
    path: PathBuf,
    file: SerializedFileWriter<File>,
    row_groups: usize,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Part").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TableWriter {
    /// Of a table with these columns, into this folder, which is made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(table: &Table, folder: PathBuf, run: &str) -> Result<TableWriter, TableError> {
        let io = |source| TableError::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(io)?;
        let parquet = |source| TableError::Parquet { path: folder.clone(), source };
        let schema = Arc::new(parse_message_type(&message(table)).map_err(parquet)?);
        let columns: Vec<Cells> = table.columns.iter().map(Cells::of).collect();
        let row_bytes: usize = columns.iter().map(Cells::bytes_of_one).sum();
        Ok(TableWriter {
            name: table.name,
            schema,
            properties: Arc::new(properties(table)),
            columns,
            texts: Texts::default(),
            gathered: 0,
            gathered_max: (GATHERED_BYTES / row_bytes.max(1)).max(1),
            row_groups_max: ROW_GROUPS_MAX,
            rows: 0,
            open: None,
            parts: Parts { folder, run: run.to_owned(), count: 0 },
        })
    }

    /// Takes a row, whose cells are in the order of the columns.
    ///
    /// # Errors
    /// When it was the last of a row group, and that cannot be written.
    pub fn push(&mut self, row: &[Cell<'_>]) -> Result<(), TableError> {
        debug_assert_eq!(row.len(), self.columns.len(), "{}", self.name);
        for (column, cell) in self.columns.iter_mut().zip(row) {
            column.push(*cell, &mut self.texts);
        }
        self.gathered += 1;
        self.rows += 1;
        if self.gathered >= self.gathered_max { self.flush() } else { Ok(()) }
    }

    /// Writes the end of the last file: all rows are there. A table without rows has a file all the same, so that an
    /// engine knows its columns.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn close(mut self) -> Result<WholeTable, TableError> {
        if self.gathered > 0 || self.parts.count == 0 {
            self.flush()?;
        }
        self.end_file()?;
        let parts = std::mem::take(&mut self.parts);
        Ok(WholeTable { name: self.name, rows: self.rows, parts })
    }

    fn flush(&mut self) -> Result<(), TableError> {
        if self.open.as_ref().is_some_and(|part| part.row_groups >= self.row_groups_max) {
            self.end_file()?;
        }
        let mut part = match self.open.take() {
            Some(part) => part,
            None => self.begin()?,
        };
        let written = write_group(&mut part.file, &self.columns, &self.texts);
        written.map_err(|source| TableError::Parquet { path: part.path.clone(), source })?;
        part.row_groups += 1;
        self.open = Some(part);
        self.columns.iter_mut().for_each(Cells::clear);
        self.texts = Texts::default();
        self.gathered = 0;
        Ok(())
    }

    fn begin(&mut self) -> Result<Part, TableError> {
        let path = partial(&self.parts.path(self.parts.count));
        let file =
            File::create(&path).map_err(|source| TableError::Io { path: path.clone(), source })?;
        self.parts.count += 1;
        let (schema, properties) = (Arc::clone(&self.schema), Arc::clone(&self.properties));
        let file = SerializedFileWriter::new(file, schema, properties)
            .map_err(|source| TableError::Parquet { path: path.clone(), source })?;
        Ok(Part { path, file, row_groups: 0 })
    }

    fn end_file(&mut self) -> Result<(), TableError> {
        let Some(Part { path, file, .. }) = self.open.take() else { return Ok(()) };
        file.close().map(drop).map_err(|source| TableError::Parquet { path, source })
    }
}

impl WholeTable {
    /// Gives the files their names. Those that an earlier table of this run had more are removed.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn commit(self) -> Result<(), TableError> {
        for number in 0..self.parts.count {
            let path = self.parts.path(number);
            fs::rename(partial(&path), &path).map_err(|source| TableError::Io { path, source })?;
        }
        let earlier = (self.parts.count..).map(|number| self.parts.path(number));
        for path in earlier {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(source) => return Err(TableError::Io { path, source }),
            }
        }
        Ok(())
    }
}

impl Parts {
    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{}.{number}.parquet", self.run))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for number in 0..self.count {
            // It has its name, or there is nobody to tell of what stays.
            drop(fs::remove_file(partial(&self.path(number))));
        }
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// The columns in Parquet's own words. Each may be empty, so that rows of later versions stand beside older ones.
fn message(table: &Table) -> String {
    let columns = table.columns.iter().map(|Column { name, kind, .. }| match kind {
        Kind::Integer => format!("OPTIONAL INT64 {name};"),
        Kind::Real => format!("OPTIONAL DOUBLE {name};"),
        Kind::Flag => format!("OPTIONAL BOOLEAN {name};"),
        Kind::Text => format!("OPTIONAL BYTE_ARRAY {name} (STRING);"),
        Kind::Time => format!("OPTIONAL INT64 {name} (TIMESTAMP(MICROS,true));"),
    });
    format!("message {} {{ {} }}", table.name, columns.collect::<Vec<_>>().join(" "))
}

/// Numbers as differences of the row before, texts by a dictionary; of each column and row group the least and the
/// greatest, by which an engine skips.
fn properties(table: &Table) -> WriterProperties {
    let about = [("vslice.schema", SCHEMA), ("vslice.table", table.name)];
    let about = about.map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("vslice {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(about.into()))
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true);
    for column in table.columns.iter().filter(|of| matches!(of.kind, Kind::Integer | Kind::Time)) {
        let path = ColumnPath::from(column.name.clone());
        builder = builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    builder.build()
}

fn write_group(
    file: &mut SerializedFileWriter<File>,
    columns: &[Cells],
    texts: &Texts,
) -> Result<(), ParquetError> {
    let mut group = file.next_row_group()?;
    let texts = texts.bytes();
    for column in columns {
        column.write(&mut group, &texts)?;
    }
    group.close().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Kind, Table};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::file::statistics::Statistics;
    use parquet::record::RowAccessor;

    fn table() -> Table {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        let columns = vec![
            column("vm", Kind::Text),
            column("start_time", Kind::Time),
            column("share", Kind::Real),
            column("is_odd", Kind::Flag),
        ];
        Table { name: "drawn", columns }
    }

    /// Two rows a row group, and three row groups a file.
    fn writer(folder: &Path) -> TableWriter {
        let writer = TableWriter::create(&table(), folder.to_owned(), "run").unwrap();
        TableWriter { gathered_max: 2, row_groups_max: 3, ..writer }
    }

    fn push(writer: &mut TableWriter, number: i64) {
        let name = format!("vm{}", number / 2);
        let time = if number == 3 { Cell::None } else { Cell::Time(number) };
        let share = Cell::Real(number as f64 / 4.0);
        writer.push(&[Cell::Text(&name), time, share, Cell::Flag(number % 2 == 1)]).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let files = fs::read_dir(folder).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn rows_are_read_as_they_were_told_and_row_groups_say_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = writer(folder.path());
        (0..5).for_each(|number| push(&mut table, number));
        let whole = table.close().unwrap();
        assert_eq!((whole.name, whole.rows), ("drawn", 5));
        whole.commit().unwrap();
        assert_eq!(names(folder.path()), ["run.0.parquet"]);
        let file = File::open(folder.path().join("run.0.parquet")).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let about = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let about: Vec<_> = about.iter().map(|of| (of.key.as_str(), of.value.as_deref())).collect();
        assert_eq!(about[..2], [("vslice.schema", Some(SCHEMA)), ("vslice.table", Some("drawn"))]);
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        let told = rows.iter().map(|row| {
            let time = row.get_timestamp_micros(1).ok();
            (
                row.get_string(0).unwrap().clone(),
                time,
                row.get_double(2).unwrap(),
                row.get_bool(3).unwrap(),
            )
        });
        let expected = (0..5_i64).map(|number| {
            let time = (number != 3).then_some(number);
            (format!("vm{}", number / 2), time, number as f64 / 4.0, number % 2 == 1)
        });
        assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let groups = reader.metadata().row_groups();
        let times = groups.iter().map(|group| match group.column(1).statistics() {
            Some(Statistics::Int64(of)) => (of.min_opt().copied(), of.max_opt().copied()),
            other => panic!("{other:?}"),
        });
        let expected = [(Some(0), Some(1)), (Some(2), Some(2)), (Some(4), Some(4))];
        assert_eq!(times.collect::<Vec<_>>(), expected);
        let first_vm = groups[1].column(0).statistics().unwrap();
        assert_eq!(first_vm.min_bytes_opt(), Some("vm1".as_bytes()));
    }

    #[test]
    fn a_long_table_has_several_files_and_a_shorter_one_in_its_place_leaves_none_of_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("other.1.parquet"), "of another run").unwrap();
        let mut table = writer(folder.path());
        (0..13).for_each(|number| push(&mut table, number));
        assert!(
            names(folder.path())
                .iter()
                .all(|name| !name.starts_with("run") || name.ends_with(PARTIAL))
        );
        table.close().unwrap().commit().unwrap();
        let long = ["other.1.parquet", "run.0.parquet", "run.1.parquet", "run.2.parquet"];
        assert_eq!(names(folder.path()), long);
        let table = writer(folder.path());
        table.close().unwrap().commit().unwrap();
        assert_eq!(names(folder.path()), ["other.1.parquet", "run.0.parquet"]);
    }

    #[test]
    fn what_is_not_committed_leaves_nothing_and_what_was_there_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("run.0.parquet"), "of an earlier time").unwrap();
        let mut table = writer(folder.path());
        (0..7).for_each(|number| push(&mut table, number));
        drop(table);
        let mut table = writer(folder.path());
        push(&mut table, 0);
        drop(table.close().unwrap());
        assert_eq!(names(folder.path()), ["run.0.parquet"]);
        let kept = fs::read(folder.path().join("run.0.parquet")).unwrap();
        assert_eq!(kept, b"of an earlier time");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = TableWriter::create(&table(), file.join("below"), "run").unwrap_err();
        assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
    }

    #[test]
    fn a_number_that_no_column_has_is_the_largest() {
        assert_eq!(Cell::count(u64::MAX), Cell::Integer(i64::MAX));
        assert_eq!([Cell::maybe(Some(7)), Cell::maybe(None)], [Cell::Integer(7), Cell::None]);
    }
}
