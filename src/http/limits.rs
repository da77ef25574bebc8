//! How much a stranger may take: connections, bytes and, above all, time.

use std::time::Duration;

/// The bounds of a server's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more wait in the system's queue.
    pub n_connections: usize,
    /// A request's head that takes longer to arrive is given up, and so is a connection that asks
    /// nothing for so long.
    pub head_time: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Header lines of a request.
    pub n_header_lines: usize,
    /// A body that pauses for longer is given up.
    pub body_pause: Duration,
    /// A body that takes longer as a whole is given up: drops that never pause are no request.
    pub body_time: Duration,
    /// Bytes of a body. A prompt may be 16 MiB of text, escaped.
    pub body_bytes: usize,
    /// A client that takes nothing of its answer for so long has left.
    pub write_stall: Duration,
    /// A comment is sent on a stream when nothing else was for so long: a long prompt must not look
    /// like a dead line.
    pub keep_alive: Duration,
    /// So long a stream's status waits for its first content, which says who answers or that nobody does.
    pub first_content: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            n_connections: 4096,
            head_time: Duration::from_secs(10),
            head_bytes: 64 << 10,
            n_header_lines: 100,
            body_pause: Duration::from_secs(10),
            body_time: Duration::from_mins(2),
            body_bytes: 32 << 20,
            write_stall: Duration::from_mins(1),
            keep_alive: Duration::from_secs(10),
            first_content: Duration::from_secs(2),
        }
    }
}
