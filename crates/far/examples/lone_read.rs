//! How long one lone page takes from a memory server, beside a bare exchange of the same sizes in the same run.
//!
//! `cargo run --release -p rackmem-far --example lone_read`; put `taskset -c 0` before it for one CPU.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rackmem_far::{Credentials, Event, FarConfig, FarMemory, Port, ReadRequest, WriteRequest};
use rackmem_memory_server::{Listen, Server, ServerConfig, Shutdown};
use rackmem_types::{Bytes, PageHash, Slot};
use rustix::event::{PollFd, PollFlags};

const EXCHANGES: usize = 20_000;
/// A READ of one page, and its PAGES.
const REQUEST_BYTES: usize = 32 + 8;
const ANSWER_BYTES: usize = 32 + 32 + 4096;
const PAGES: u32 = 1024;
/// From one page to the next.
const STRIDE: u32 = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut bare = bare_stream()?;
    let (server, shutdown, mut port) = port()?;
    let mut request = [0; REQUEST_BYTES];
    let mut answer = [0; ANSWER_BYTES];
    let mut blocking = || {
        bare.write_all(&request).and_then(|()| bare.read_exact(&mut answer)).expect("loopback works");
    };
    let blocking_us = median_us(&mut blocking);
    let mut polled = || {
        request[0] ^= 1;
        bare.write_all(&request).expect("loopback works");
        rustix::event::poll(&mut [PollFd::from_borrowed_fd(bare.as_fd(), PollFlags::IN)], None)
            .expect("poll works");
        bare.read_exact(&mut answer).expect("loopback works");
    };
    let polled_us = median_us(&mut polled);
    let mut slot = 0;
    let mut lone = || {
        slot = (slot + STRIDE) % PAGES;
        port.read(&[ReadRequest { tag: slot, slot: Slot(slot) }]);
        while port.in_flight() > 0 {
            port.wait(None, &mut |event| assert!(matches!(event, Event::Page { .. }), "{event:?}"));
        }
    };
    let port_us = median_us(&mut lone);
    println!("bare exchange, blocking   {blocking_us:7.2} µs");
    println!("bare exchange, polled     {polled_us:7.2} µs");
    println!("port, lone read           {port_us:7.2} µs");
    println!("ratio to blocking {:.3}, to polled {:.3}", port_us / blocking_us, port_us / polled_us);
    drop(port);
    shutdown.trigger();
    server.wait();
    Ok(())
}

fn median_us(exchange: &mut dyn FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..EXCHANGES)
        .map(|_| {
            let begin = Instant::now();
            exchange();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[EXCHANGES / 2].as_secs_f64() * 1e6
}

fn bare_stream() -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut peer, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    peer.set_nodelay(true)?;
    std::thread::spawn(move || {
        // As many pages, in the same order, so that both sides find their data in the same caches.
        let answers = vec![7; ANSWER_BYTES * PAGES as usize];
        let mut request = [0; REQUEST_BYTES];
        let mut slot = 0;
        while peer.read_exact(&mut request).is_ok() {
            slot = (slot + STRIDE) % PAGES;
            let start = slot as usize * ANSWER_BYTES;
            if peer.write_all(&answers[start..start + ANSWER_BYTES]).is_err() {
                return;
            }
        }
    });
    Ok(stream)
}

fn port() -> Result<(Server, Shutdown, Port), Box<dyn std::error::Error>> {
    let shutdown = Shutdown::new()?;
    let listen = vec![Listen::Tcp { host: "127.0.0.1".into(), port: 0 }];
    let server = Server::start(&ServerConfig::new(Bytes::from_pages(PAGES.into()), listen), &shutdown)?;
    let address = server.places()[0].to_string().parse()?;
    let mut config = FarConfig::new(vec![address], Credentials::default(), "lone-read");
    config.extent_pages = PAGES;
    let memory = FarMemory::connect(config)?;
    let slots = memory.grow()?.ok_or("no room")?;
    let mut port = memory.port()?;
    let data = [7; 4096];
    let checksum = PageHash::of(&data).checksum();
    let write = |slot| WriteRequest { tag: slot, slot: Slot(slot), version: 1, checksum, data: &data };
    port.write(&slots.map(write).collect::<Vec<_>>());
    while port.in_flight() > 0 {
        port.wait(None, &mut |event| assert!(matches!(event, Event::Stored { .. }), "{event:?}"));
    }
    Ok((server, shutdown, port))
}
