//! The threads that answer reads, each with a connection of its own.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{Threads, configure};

const READERS: usize = 2;

pub(super) type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

fn read_until_closed(connection: &Connection, inbox: &Mutex<mpsc::Receiver<ReadJob>>) {
    loop {
        // The guard is gone before the job runs, so the other readers go on.
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if let Err(panic) = dormouse_core::catch(|| job(connection)) {
            tracing::error!(%panic, "a read of the store has panicked");
        }
    }
}

/// Connections that read the file.
pub(super) fn open(file: &Path) -> Result<Vec<Connection>, rusqlite::Error> {
    (0..READERS).map(|_| open_reader(file)).collect()
}

fn open_reader(file: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    configure(&connection)?;
    Ok(connection)
}

/// Threads that read with them.
pub(super) fn begin(connections: Vec<Connection>) -> Result<Threads<ReadJob>, io::Error> {
    let (sender, inbox) = mpsc::channel();
    let inbox = Arc::new(Mutex::new(inbox));
    let mut reads = Threads { sender: Some(sender), handles: Vec::with_capacity(READERS) };
    for connection in connections {
        let inbox = Arc::clone(&inbox);
        let reader = thread::Builder::new()
            .name("dormouse-store-reader".into())
            .spawn(move || read_until_closed(&connection, &inbox))?;
        reads.handles.push(reader);
    }
    Ok(reads)
}
