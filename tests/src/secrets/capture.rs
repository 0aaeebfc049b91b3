//! Packet capture on the lab's bridge.

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

/// Maximum size of a frame, and of a capture.
const FRAME: usize = 64 << 10;
const MAX_CAPTURE: usize = 1 << 30;

/// Size of the receive buffer in bytes, for frames that arrive while the file is written.
const BUFFER: usize = 64 << 20;

/// Capture of every frame on the bridge into a file. Drop stops it.
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<usize>>>,
}

impl Capture {
    /// Starts the capture in the bridge's namespace.
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

    /// Stops the capture and returns all frames.
    pub fn seen(mut self) -> Result<Vec<u8>> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("the capture has not ended before")?;
        let length = thread.join().expect("the thread only writes a file")?;
        ensure!(
            length < MAX_CAPTURE,
            "the capture has more than {MAX_CAPTURE} bytes and is incomplete"
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
    let every = Protocol::from_raw(NonZeroU32::new(EVERY_FRAME).expect("the constant is not zero"));
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
