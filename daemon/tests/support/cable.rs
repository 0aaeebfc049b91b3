//! A UDP path from one node to another that can be cut like a partition: packets are lost without
//! an error.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Forwards packets between the dialler of `address` and the target.
pub(crate) struct Cable {
    pub(crate) address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Cable {
    /// Creates a cable on the loopback address `on`.
    pub(crate) async fn new(on: IpAddr, target: SocketAddr) -> Self {
        let near = UdpSocket::bind((on, 0)).await.unwrap();
        let far = UdpSocket::bind((on, 0)).await.unwrap();
        let address = near.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let mut task = JoinSet::new();
        task.spawn(forward(near, far, target, Arc::clone(&is_cut)));
        Self { address, is_cut, _task: task }
    }

    pub(crate) fn set_cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }
}

async fn forward(near: UdpSocket, far: UdpSocket, target: SocketAddr, is_cut: Arc<AtomicBool>) {
    let (mut there, mut back) = (vec![0; 2048], vec![0; 2048]);
    let mut dialler = None;
    loop {
        tokio::select! {
            received = near.recv_from(&mut there) => {
                let Ok((length, from)) = received else { continue };
                dialler = Some(from);
                if !is_cut.load(Ordering::SeqCst) {
                    // No receiver or a full buffer: the packet is lost, as on any cable.
                    far.send_to(&there[..length], target).await.ok();
                }
            }
            received = far.recv_from(&mut back) => {
                let (Ok((length, from)), Some(dialler)) = (received, dialler) else { continue };
                if from == target && !is_cut.load(Ordering::SeqCst) {
                    near.send_to(&back[..length], dialler).await.ok();
                }
            }
        }
    }
}
