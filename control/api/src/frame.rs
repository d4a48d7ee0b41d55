//! One JSON document per line.

use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest line accepted, in bytes. A full table upsert of 4,096 objects stays below 2 MiB; a peer
/// that sends more without a newline is cut off instead of filling memory.
pub const LINE_BYTES_MAX: usize = 8 << 20;

/// Writes `message` as one line.
///
/// # Errors
/// Those of the writer; a message that cannot be encoded is `InvalidData`.
pub fn write_line<T: Serialize>(writer: &mut impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line)
}

/// Reads one line; `None` at a clean end of stream.
///
/// # Errors
/// Those of the reader; `InvalidData` for a line that is too long, cut off, or not the document
/// expected.
pub fn read_line<T: DeserializeOwned>(reader: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    io::Read::take(&mut *reader, limit).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let what = if line.len() > LINE_BYTES_MAX {
            "a line is too long"
        } else {
            "the last line is cut off"
        };
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    decode(&line).map(Some)
}

/// Decodes one line.
///
/// # Errors
/// `InvalidData` with serde's column when it is not the document expected.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn lines_round_trip_and_a_cut_off_line_is_an_error() {
        let mut bytes = Vec::new();
        write_line(&mut bytes, &[1, 2]).unwrap();
        write_line(&mut bytes, &[3]).unwrap();
        bytes.extend_from_slice(b"[4");
        let mut reader = BufReader::new(bytes.as_slice());
        assert_eq!(read_line::<Vec<u8>>(&mut reader).unwrap(), Some(vec![1, 2]));
        assert_eq!(read_line::<Vec<u8>>(&mut reader).unwrap(), Some(vec![3]));
        assert!(read_line::<Vec<u8>>(&mut reader).is_err());
        assert_eq!(read_line::<Vec<u8>>(&mut reader).unwrap(), None);
    }
}
