//! Event files that TensorBoard reads: losses, rates and sheets.
//!
//! A file is a row of records (TensorFlow's `TFRecord`), each of which is an `Event` in protobuf
//! (`tensorflow/core/util/event.proto`). Only what is written is built here.

mod message;
mod record;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use message::Message;

use crate::Result;
use crate::error::file_error;

/// The file of one run. A run that goes on has another; what it repeats takes the place of what was there.
#[derive(Debug)]
pub(crate) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// A new file in `folder`, of a run whose next step is `step`.
    pub(crate) fn begin(folder: &Path, step: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(file_error(folder))?;
        let name = format!("events.out.tfevents.{}.ediffi.{}", now() as u64, std::process::id());
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(file_error(&path))?;
        let mut events = Self { path, file };
        events.write(Message::new().text(3, "brain.Event:2"))?;
        // A start: TensorBoard leaves out what an earlier file has from this step on.
        events.write(Message::new().integer(2, step).message(7, Message::new().integer(1, 1)))?;
        Ok(events)
    }

    /// Adds a number.
    pub(crate) fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.summary(step, Message::new().text(1, tag).float(2, value as f32))
    }

    /// Adds a picture of `width` by `height` pixels, as the bytes of a PNG.
    pub(crate) fn picture(&mut self, tag: &str, step: u64, (width, height): (u32, u32), png: &[u8]) -> Result<()> {
        let image = Message::new().integer(1, height.into()).integer(2, width.into()).integer(3, 3).bytes(4, png);
        self.summary(step, Message::new().text(1, tag).message(4, image))
    }

    fn summary(&mut self, step: u64, value: Message) -> Result<()> {
        self.write(Message::new().integer(2, step).message(5, Message::new().message(1, value)))
    }

    /// One write an event, so that a kill costs no more than the last.
    fn write(&mut self, event: Message) -> Result<()> {
        let event = event.double(1, now());
        self.file.write_all(&record::record(event.as_bytes())).map_err(file_error(&self.path))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a file, their lengths checked.
    fn records(bytes: &[u8]) -> Vec<&[u8]> {
        let (mut rest, mut found) = (bytes, Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            found.push(&rest[12..12 + length]);
            rest = &rest[12 + length + 4..];
        }
        found
    }

    #[test]
    fn a_file_begins_with_its_version_and_a_start_and_holds_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::begin(&folder.path().join("base.shared"), 7).unwrap();
        events.scalar("loss", 20, 0.25).unwrap();
        events.picture("samples", 20, (4, 2), b"png").unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        let records = records(&bytes);
        let has = |record: usize, part: &[u8]| records[record].windows(part.len()).any(|window| window == part);
        assert_eq!(records.len(), 4);
        assert!(has(0, b"\x1a\x0dbrain.Event:2"));
        assert!(has(1, b"\x10\x07\x3a\x02\x08\x01"), "step 7, session log, start");
        // Field 5: field 1: tag "loss", simple value 0.25.
        assert!(has(2, b"\x10\x14\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x80\x3e"));
        assert!(has(3, b"\x22\x0b\x08\x02\x10\x04\x18\x03\x22\x03png"));
    }
}
