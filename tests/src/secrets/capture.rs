//! What passes over the lab's bridge, as whoever is attached to it would see it.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::lab::{Lab, enter_network};

/// `ETH_P_ALL` in network order (packet(7)): every frame.
const EVERY_FRAME: u32 = 0x0003_u16.to_be() as u32;

/// The largest frame, and what is kept of a run.
const FRAME: usize = 64 << 10;
const MAX_CAPTURE: usize = 1 << 30;

/// Room for what comes while the file is written, in bytes.
const BUFFER: usize = 64 << 20;

/// Writes every frame on the bridge into a file until it is stopped.
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<usize>>>,
}

impl Capture {
    /// Begins to listen in the bridge's namespace.
    pub fn start(lab: &Lab, file: &Path) -> Result<Self> {
        let (namespace, path) = (lab.bridge_namespace(), file.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let socket = match listen(&namespace) {
                Ok(socket) => socket,
                Err(error) => {
                    ready.send(Err(format!("{error:#}"))).ok();
                    return Err(error);
                }
            };
            ready.send(Ok(())).ok();
            write_frames(&socket, &path, &stopped)
        });
        is_ready.recv()?.map_err(anyhow::Error::msg).context("listen on the lab's bridge")?;
        Ok(Self { file: file.to_owned(), stop, thread: Some(thread) })
    }

    /// Ends it, and gives all that was seen.
    pub fn seen(mut self) -> Result<Vec<u8>> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("it runs until here")?;
        let length = thread.join().expect("the thread only writes a file")?;
        ensure!(
            length < MAX_CAPTURE,
            "more than {MAX_CAPTURE} bytes passed: not all of them were kept"
        );
        Ok(std::fs::read(&self.file)?)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn listen(namespace: &Path) -> Result<OwnedFd> {
    enter_network(namespace)?;
    let every = Protocol::from_raw(NonZeroU32::new(EVERY_FRAME).expect("it is 3"));
    let socket =
        socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(every))?;
    set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_millis(100)))?;
    Ok(socket)
}

fn write_frames(socket: &OwnedFd, path: &Path, stop: &AtomicBool) -> Result<usize> {
    let mut file = BufWriter::new(File::create(path)?);
    let (mut frame, mut length) = (vec![0; FRAME], 0);
    while !stop.load(Ordering::Acquire) {
        match recv(socket, &mut frame[..], RecvFlags::empty()) {
            Ok((read, _)) if length < MAX_CAPTURE => {
                file.write_all(&frame[..read])?;
                length += read;
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.flush()?;
    Ok(length)
}
