//! Where what is recorded is kept, if it is: whoever only looks on keeps nothing.

use crate::reserve;
use serde::Serialize;
use vslice_trace::manifest::Manifest;
use vslice_trace::{RunDir, StackNames, StoreError};

/// A run directory, or nothing.
#[derive(Debug, Clone)]
pub(crate) struct Kept(Option<RunDir>);

impl Kept {
    /// All of it.
    pub(crate) fn in_directory(dir: RunDir) -> Kept {
        Kept(Some(dir))
    }

    /// Nothing of it.
    pub(crate) fn nothing() -> Kept {
        Kept(None)
    }

    /// The directory.
    pub(crate) fn dir(&self) -> Option<&RunDir> {
        self.0.as_ref()
    }

    pub(crate) fn write_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        self.0.as_ref().map_or(Ok(()), |dir| dir.write_json("run.json", manifest))
    }

    /// Writes what only this user may read.
    pub(crate) fn write_private(
        &self,
        name: &str,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        self.0.as_ref().map_or(Ok(()), |dir| dir.write_private_json(name, value))
    }

    pub(crate) fn write_stack_names(&self, names: &[StackNames]) -> Result<(), StoreError> {
        self.0.as_ref().map_or(Ok(()), |dir| dir.write_stack_names(names))
    }

    /// Takes room for the last words, see [`reserve::take`].
    pub(crate) fn take_room(&self) -> Result<(), StoreError> {
        self.0.as_ref().map_or(Ok(()), reserve::take)
    }

    /// See [`reserve::fit`].
    pub(crate) fn fit_room(&self, manifest: &Manifest) -> Result<(), StoreError> {
        self.0.as_ref().map_or(Ok(()), |dir| reserve::fit(dir, manifest))
    }

    /// See [`reserve::release`].
    pub(crate) fn release_room(&self) {
        self.0.iter().for_each(reserve::release);
    }

    /// What the streams take, as far as that can be seen.
    pub(crate) fn streams_bytes(&self) -> u64 {
        self.0.as_ref().and_then(|dir| dir.streams_bytes().ok()).unwrap_or(0)
    }

    pub(crate) fn sync_streams(&self) -> Result<(), StoreError> {
        self.0.as_ref().map_or(Ok(()), RunDir::sync_streams)
    }
}
