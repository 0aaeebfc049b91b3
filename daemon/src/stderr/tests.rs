use std::fs::File;
use std::io::{Read as _, pipe};
use std::sync::mpsc;

use tracing::subscriber::with_default;

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn log(stderr: &Stderr) -> impl tracing::Subscriber + Send + Sync + 'static {
    tracing_subscriber::fmt().with_writer(stderr.clone()).with_ansi(false).finish()
}

/// musterd stopped, Raft and SIGTERM included, as soon as a pipe that nobody reads was full.
#[test]
fn a_reader_that_does_not_read_stops_nothing_and_gets_the_count_later() {
    let (mut reader, writer) = pipe().unwrap();
    let stderr = Stderr::start_with(writer).unwrap();
    let started = Instant::now();
    let line = "x".repeat(1000);
    with_default(log(&stderr), || {
        for number in 0..4000 {
            tracing::info!(number, line, "flood");
        }
    });
    stderr.print("musterd: the last error");
    assert!(started.elapsed() < SOON, "it waited for the reader");
    let flushing = Instant::now();
    stderr.flush();
    assert!(flushing.elapsed() < FLUSH_TIMEOUT + SOON, "the exit waited for the reader");

    let (lines, read) = mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut piece = [0; 1 << 12];
        while let Ok(count @ 1..) = reader.read(&mut piece) {
            seen.extend_from_slice(&piece[..count]);
            if lines.send(String::from_utf8_lossy(&seen).into_owned()).is_err() {
                break;
            }
        }
    });
    // The thread reports to the default subscriber, which tests do not have: see the next test for
    // the words.
    let text = read.iter().find(|text| text.contains("the last error")).unwrap();
    let kept = text.matches("flood").count();
    assert!((500..2000).contains(&kept), "{kept} lines are kept");
    assert!(text.lines().all(|line| line.contains("flood") || line.starts_with("musterd:")));
}

/// The same cut in pieces: what the thread does after each line.
#[test]
fn the_number_of_dropped_lines_is_reported_once_a_line_is_written() {
    let stderr = Stderr(Arc::default());
    with_default(log(&stderr), || {
        tracing::info!("first");
        stderr.next();
        stderr.on_written(false);
        tracing::info!("second");
        stderr.next();
        stderr.on_written(true);
    });
    let report = String::from_utf8(stderr.next()).unwrap();
    assert!(report.contains("log lines dropped") && report.contains("lines=1"), "{report}");
}

/// tracing-subscriber reported the error with `eprintln!`, which panicked: exit code 101.
#[test]
fn a_full_disk_and_a_closed_reader_are_survived() {
    let (reader, closed) = pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for file in [full.into(), std::os::fd::OwnedFd::from(closed)] {
        let stderr = Stderr::start_with(file).unwrap();
        with_default(log(&stderr), || tracing::info!("lost"));
        stderr.print("musterd: lost too");
        stderr.flush();
        let state = stderr.lock();
        assert!(state.queue.is_empty() && !state.is_writing, "it hangs");
    }
}

#[test]
fn a_pipe_that_does_not_block_is_waited_for() {
    let (mut reader, writer) = pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let stderr = Stderr::start_with(writer).unwrap();
    let long = "x".repeat(1 << 18);
    stderr.print(&long);
    stderr.print("next");
    let mut text = vec![0; long.len() + 6];
    reader.read_exact(&mut text).unwrap();
    assert!(text.ends_with(b"x\nnext\n"));
}
