//! A file that is there only once it is whole.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Under its own name once all of it is written, so that one of the same name stays as it is until then. What is there
/// already and no ordinary file, such as `/dev/stdout` or a pipe, is written to as it is.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    New(BufWriter<NamedTempFile>),
    There(BufWriter<File>),
}

impl OutputFile {
    pub(super) fn create(path: &Path) -> std::io::Result<OutputFile> {
        let is_other = std::fs::metadata(path).is_ok_and(|there| !there.is_file());
        let to = if is_other {
            To::There(BufWriter::new(File::options().write(true).open(path)?))
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            // As any new file has them, less the umask.
            let file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o666))
                .tempfile_in(folder.unwrap_or(Path::new(".")))?;
            To::New(BufWriter::new(file))
        };
        Ok(OutputFile { path: path.to_owned(), to })
    }

    /// All of it is written: it gets its name.
    pub(super) fn commit(self) -> std::io::Result<()> {
        match self.to {
            To::New(file) => {
                let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
                file.persist(&self.path).map_err(|error| error.error)?;
                Ok(())
            }
            To::There(mut file) => file.flush(),
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.to {
            To::New(file) => file.write(bytes),
            To::There(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.to {
            To::New(file) => file.flush(),
            To::There(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_has_its_name_only_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        fs::write(&path, "before").unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before");
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left of it");
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"after").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        let ordinary = folder.path().join("ordinary");
        fs::write(&ordinary, "").unwrap();
        assert_eq!(mode(&path), mode(&ordinary));
    }

    #[test]
    fn what_is_no_ordinary_file_is_written_to_as_it_is() {
        let mut file = OutputFile::create(Path::new("/dev/null")).unwrap();
        file.write_all(b"gone").unwrap();
        file.commit().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert!(OutputFile::create(Path::new("/nowhere/a.csv")).is_err());
    }
}
