//! Why a conversation with a client ends before its time.

/// The client went away, or never came to the point; nobody is left to answer.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    /// It closed the connection.
    #[error("the client closed the connection")]
    Closed,
    /// The system says so.
    #[error("client: {0}")]
    Io(#[from] std::io::Error),
    /// It did not take or give bytes in time.
    #[error("the client said nothing for too long")]
    Deadline,
    /// The server stops.
    #[error("shutting down, come back")]
    Stopping,
    /// Bytes came in the clear behind STARTTLS.
    #[error("something came in the clear behind STARTTLS")]
    Injected,
}
