//! What listens in the guest while the network suite runs: static, since the minimal image has no interpreter. Built by
//! tests/build.rs, carried by the suite, put into the guest as a file and run there as one of its users.
//!
//! `peer MODE tcp | unix:PATH` says `listening PORT` (0 for a path) on stdout, then how each connection ended: `end`, or
//! `error KIND`. Modes:
//!   - `echo` gives back what comes, until its end;
//!   - `speak` says `hello` and no more, then reads to the end and tells how much it was;
//!   - `flood` writes without end;
//!   - `late` says `accepted`, and reads to the end when its own stdin has ended.

use std::{
    env,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    thread,
};

trait Stream: Read + Write + Send {
    fn end_writing(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for UnixStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [mode, address] = arguments.as_slice() else {
        panic!("usage: peer MODE tcp | unix:PATH");
    };
    let serve = |stream: Box<dyn Stream>| {
        let mode = mode.clone();
        thread::spawn(move || match talk(&mode, stream) {
            Ok(()) => println!("end"),
            Err(error) => println!("error {:?}", error.kind()),
        });
    };
    if let Some(path) = address.strip_prefix("unix:") {
        let listener = UnixListener::bind(path)?;
        println!("listening 0");
        listener.incoming().try_for_each(|stream| Ok(serve(Box::new(stream?))))
    } else {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("listening {}", listener.local_addr()?.port());
        listener.incoming().try_for_each(|stream| Ok(serve(Box::new(stream?))))
    }
}

fn talk(mode: &str, mut stream: Box<dyn Stream>) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    match mode {
        "echo" => loop {
            match stream.read(&mut chunk)? {
                0 => return stream.end_writing(),
                length => stream.write_all(&chunk[..length])?,
            }
        },
        "speak" => {
            stream.write_all(b"hello")?;
            stream.end_writing()?;
            let length = io::copy(&mut stream, &mut io::sink())?;
            println!("heard {length}");
            Ok(())
        }
        "flood" => loop {
            stream.write_all(&chunk)?;
        },
        "late" => {
            println!("accepted");
            io::copy(&mut io::stdin(), &mut io::sink())?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        }
        other => panic!("no mode {other}"),
    }
}
