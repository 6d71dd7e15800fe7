//! Reading the audit log back: every record in order, across rotated files.
//!
//! Takes: the log's path. Gives: an iterator of lines with their records. What is no record (a
//! torn line, zero bytes, a foreign line, another version) is skipped and counted; a file that is
//! rotated away meanwhile is passed over.
//! Bounds: `limits::RECORD_BYTES_MAX` for one line.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use crate::audit::disk::{Disk, How, Stream};
use crate::audit::fault::{Error, disk};
use crate::audit::files::LogFiles;
use crate::audit::record::Record;
use crate::mail::limits::RECORD_BYTES_MAX;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The record.
    pub record: Record,
    /// The line as it stands, without its line end.
    pub line: String,
}

/// Reads the records of a log, oldest first. Blocks.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    files: VecDeque<PathBuf>,
    /// The file that is written, read last.
    current: Option<(PathBuf, Stream)>,
    open: Option<(PathBuf, BufReader<Stream>)>,
    skipped: u64,
}

impl Reader {
    /// The log that is written at `path`, with what was rotated from it.
    pub fn log(disk_layer: Arc<dyn Disk>, path: PathBuf) -> Result<Reader, Error> {
        let files = LogFiles::new(path);
        // Why opened before the others are listed: a rotation meanwhile would hide it.
        let current = match disk_layer.open(files.path(), How::Read) {
            Ok(file) => Some(file),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => None,
            Err(fault) => return Err(Error::disk("open", files.path(), &fault)),
        };
        let rotated = files.list(&*disk_layer).map_err(disk("list the folder", files.folder()))?;
        let mut paths: Vec<PathBuf> = rotated.keys().map(|stamp| files.rotated(stamp)).collect();
        paths.retain(|path| !current.as_ref().is_some_and(|file| file.is_at(path)));
        let current = current.map(|file| (files.path().to_owned(), Stream::new(file)));
        Ok(Reader { current, ..Reader::files(disk_layer, paths) })
    }

    /// These files, in this order.
    pub fn files(disk_layer: Arc<dyn Disk>, paths: Vec<PathBuf>) -> Reader {
        Reader { disk: disk_layer, files: paths.into(), current: None, open: None, skipped: 0 }
    }

    /// How many lines were skipped so far because they are no records.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next line of any kind, `None` at the end of the last file.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some((path, file)) = &mut self.open {
                match bounded_line(file) {
                    Ok(Some(line)) => return Ok(Some(line)),
                    Ok(None) => self.open = None,
                    Err(fault) => {
                        let error = Error::disk("read", path, &fault);
                        self.open = None;
                        return Err(error);
                    }
                }
            }
            let Some(path) = self.files.pop_front() else {
                match self.current.take() {
                    Some((path, file)) => self.open = Some((path, BufReader::new(file))),
                    None => return Ok(None),
                }
                continue;
            };
            match self.disk.open(&path, How::Read) {
                Ok(file) => self.open = Some((path, BufReader::new(Stream::new(file)))),
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => return Err(Error::disk("open", &path, &fault)),
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Logged, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.next_line().transpose()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            let read = |line: String| Some((Record::parse(&line)?, line));
            match String::from_utf8(line).ok().and_then(read) {
                Some((record, line)) => return Some(Ok(Logged { record, line })),
                None => self.skipped = self.skipped.saturating_add(1),
            }
        }
    }
}

/// One line without its end; of a line past the bound only the beginning, which is no record.
fn bounded_line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let block = file.fill_buf()?;
        if block.is_empty() {
            // A line without its end is being written, or torn: not a record yet.
            return Ok(any.then(Vec::new));
        }
        any = true;
        let end = memchr::memchr(b'\n', block);
        let piece = block.get(..end.unwrap_or(block.len())).unwrap_or_default();
        let free = RECORD_BYTES_MAX.saturating_add(1).saturating_sub(line.len());
        line.extend_from_slice(piece.get(..free).unwrap_or(piece));
        let used = piece.len().saturating_add(usize::from(end.is_some()));
        file.consume(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}
