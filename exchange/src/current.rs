//! Values that are replaced as a whole while others use them: TLS of a listener, trust bundle with its signing queues.
//!
//! The reload replaces them, and any thread takes one. They are memory: the files say what a start begins with.

use std::sync::Arc;

use tokio::sync::watch;

/// The value in force. A user that has taken one keeps it; the next one to ask gets the next one.
pub struct Current<T: ?Sized>(watch::Sender<Arc<T>>);

impl<T: ?Sized> Current<T> {
    /// Begins with a value.
    pub fn new(value: impl Into<Arc<T>>) -> Self {
        Self(watch::Sender::new(value.into()))
    }

    /// The value in force now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }

    /// The value in force now, and word of each one after it.
    pub fn follow(&self) -> watch::Receiver<Arc<T>> {
        self.0.subscribe()
    }

    /// Puts another in its place, for everybody who holds this or a clone of it.
    pub fn replace(&self, value: impl Into<Arc<T>>) {
        self.0.send_replace(value.into());
    }
}

impl<T: ?Sized> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
