//! The bytes read from one side of a session and not yet given to the other: one fixed buffer a direction.

use std::io;

/// The most bytes in flight in one direction of one session.
pub(super) const PIPE_BYTES: usize = 32 * 1024;

/// One direction's buffer.
pub(super) struct Pipe {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Pipe {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; PIPE_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Puts the gate's own words behind what waits, if they fit.
    pub(super) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.end + bytes.len();
        let space = self.buffer.get_mut(self.end..end).ok_or(io::ErrorKind::StorageFull)?;
        space.copy_from_slice(bytes);
        self.end = end;
        Ok(())
    }

    /// What waits to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Does nothing wait?
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Appends one read. `None` when there was nothing to read or no space, `Some(0)` at the end of the stream.
    pub(super) fn append(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() {
            return Ok(None);
        }
        let bytes = would_block(read(&mut self.buffer[self.end..]))?;
        self.end += bytes.unwrap_or(0);
        Ok(bytes)
    }

    /// Makes one write of the first `most` bytes that wait. Returns the bytes written, which it forgets with the next call.
    pub(super) fn write(
        &mut self,
        most: usize,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<&[u8]> {
        let end = self.end.min(self.start + most);
        let written = would_block(write(&self.buffer[self.start..end]))?.unwrap_or(0);
        let from = self.start;
        self.start += written;
        Ok(&self.buffer[from..self.start])
    }
}

fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came_and_space_is_bounded() {
        let mut pipe = Pipe::new();
        let read = |space: &mut [u8]| {
            space.fill(7);
            Ok(space.len())
        };
        assert_eq!(pipe.append(read).unwrap(), Some(PIPE_BYTES));
        assert_eq!(pipe.append(read).unwrap(), None);
        assert_eq!(pipe.write(PIPE_BYTES, |bytes| Ok(bytes.len() - 1)).unwrap().len(), PIPE_BYTES - 1);
        assert_eq!(pipe.write(PIPE_BYTES, |_| Err(io::ErrorKind::WouldBlock.into())).unwrap(), b"");
        assert_eq!(pipe.write(PIPE_BYTES, |bytes| Ok(bytes.len())).unwrap(), [7]);
        assert!(pipe.is_empty());
    }
}
