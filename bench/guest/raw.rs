//! The raw limit: what a vsock and a fork cost without anybody's protocol. Built by bench/build.rs, put into the guest and
//! run there as root by the bench. It serves whoever connects, so it belongs into no other machine.
//!
//! `raw serve PORT UID` listens on vsock ports from PORT on, with a thread for each connection:
//!   - PORT: gives back what comes;
//!   - PORT+1: takes a length (8 bytes, little-endian), sends so many bytes, and again;
//!   - PORT+2: takes a length, takes so many bytes, answers one, and again;
//!   - PORT+3: for each byte: forks, becomes UID, runs /bin/true, waits, answers one byte;
//!   - PORT+4: becomes `sshd -i`, which is how OpenSSH is reached over vsock.
//!
//! `raw fill DIRECTORY COUNT` makes so many empty files, and `raw files DIRECTORY COUNT SIZE` such ones with content.
//! `raw ready SOCKET PROGRAM…` starts a program and prints after how many microseconds it takes connections at SOCKET.

use std::{
    env,
    ffi::{CString, c_char, c_int, c_uint, c_void},
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const AF_VSOCK: c_int = 40;
const SOCK_STREAM: c_int = 1;
const SOCK_CLOEXEC: c_int = 0o2000000;
const CID_ANY: c_uint = c_uint::MAX;

/// struct sockaddr_vm of linux/vm_sockets.h.
#[repr(C)]
struct VsockAddress {
    family: u16,
    reserved: u16,
    port: c_uint,
    cid: c_uint,
    zero: [u8; 4],
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(socket: c_int, address: *const VsockAddress, length: c_uint) -> c_int;
    fn listen(socket: c_int, backlog: c_int) -> c_int;
    fn accept4(socket: c_int, address: *mut c_void, length: *mut c_uint, flags: c_int) -> c_int;
    fn fork() -> c_int;
    fn setgroups(count: usize, groups: *const c_uint) -> c_int;
    fn setresgid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    fn setresuid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, env: *const *const c_char) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
}

type Served = fn(fs::File, c_uint) -> io::Result<()>;

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", port, uid] => serve(number(port) as c_uint, number(uid) as c_uint),
        ["fill", directory, count] => fill(Path::new(directory), number(count), 0),
        ["files", directory, count, size] => {
            fill(Path::new(directory), number(count), number(size) as usize)
        }
        ["ready", socket, program, ref arguments @ ..] => ready(socket, program, arguments),
        _ => panic!("usage: raw serve PORT UID | fill DIRECTORY COUNT | files DIRECTORY COUNT SIZE | ready SOCKET PROGRAM…"),
    }
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn serve(port: c_uint, uid: c_uint) -> io::Result<()> {
    let services: [Served; 5] = [echo, source, sink, run, sshd];
    for (port, service) in (port..).zip(services) {
        let listener = listen_on(port)?;
        thread::spawn(move || {
            loop {
                // SAFETY: no address is asked for.
                let raw = unsafe {
                    accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), SOCK_CLOEXEC)
                };
                if raw < 0 {
                    continue;
                }
                // SAFETY: accept4 just made it, and nobody else owns it.
                let stream = unsafe { fs::File::from_raw_fd(raw) };
                // A peer that goes away ends it.
                thread::spawn(move || service(stream, uid));
            }
        });
    }
    println!("ready");
    io::stdout().flush()?;
    loop {
        thread::park();
    }
}

fn listen_on(port: c_uint) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers.
    let raw = check(unsafe { socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0) })?;
    // SAFETY: socket just made it, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let address = VsockAddress { family: AF_VSOCK as u16, reserved: 0, port, cid: CID_ANY, zero: [0; 4] };
    // SAFETY: the address is alive and as long as said.
    check(unsafe { bind(raw, &address, size_of::<VsockAddress>() as c_uint) })?;
    // SAFETY: plain numbers.
    check(unsafe { listen(raw, 128) })?;
    Ok(socket)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn echo(mut stream: fs::File, _: c_uint) -> io::Result<()> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&chunk[..length])?;
    }
}

fn source(mut stream: fs::File, _: c_uint) -> io::Result<()> {
    let chunk = vec![1; 1024 * 1024];
    loop {
        let mut left = length(&mut stream)?;
        while left > 0 {
            let piece = left.min(chunk.len());
            stream.write_all(&chunk[..piece])?;
            left -= piece;
        }
    }
}

fn sink(mut stream: fs::File, _: c_uint) -> io::Result<()> {
    let mut chunk = vec![0; 1024 * 1024];
    loop {
        let mut left = length(&mut stream)?;
        while left > 0 {
            let room = left.min(chunk.len());
            let read = stream.read(&mut chunk[..room])?;
            if read == 0 {
                return Ok(());
            }
            left -= read;
        }
        stream.write_all(&[1])?;
    }
}

fn length(stream: &mut fs::File) -> io::Result<usize> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    Ok(u64::from_le_bytes(length) as usize)
}

fn run(mut stream: fs::File, uid: c_uint) -> io::Result<()> {
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        // SAFETY: the child makes only async-signal-safe calls on constants, and never returns.
        let child = check(unsafe { fork() })?;
        if child == 0 {
            // SAFETY: in the child of a fork.
            unsafe { become_true(uid) };
        }
        let mut status = 0;
        // SAFETY: the child is ours, and the status is alive.
        check(unsafe { waitpid(child, &mut status, 0) })?;
        stream.write_all(&[u8::from(status != 0)])?;
    }
}

/// # Safety
/// For the child of a fork alone.
unsafe fn become_true(uid: c_uint) -> ! {
    let path = c"/bin/true".as_ptr();
    let arguments = [path, std::ptr::null()];
    let environment = [std::ptr::null()];
    // SAFETY: numbers, and constants that live; what fails ends the child.
    unsafe {
        if setgroups(1, &uid) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0 {
            execve(path, arguments.as_ptr(), environment.as_ptr());
        }
        _exit(127)
    }
}

fn sshd(stream: fs::File, _: c_uint) -> io::Result<()> {
    let path = CString::new("/usr/sbin/sshd")?;
    let arguments = [path.as_ptr(), c"-i".as_ptr(), std::ptr::null()];
    let environment = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(), std::ptr::null()];
    // SAFETY: the child makes only async-signal-safe calls on what was made before, and never returns.
    let child = check(unsafe { fork() })?;
    if child == 0 {
        // SAFETY: descriptors that are open, strings that live.
        unsafe {
            dup2(stream.as_raw_fd(), 0);
            dup2(stream.as_raw_fd(), 1);
            execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            _exit(127)
        }
    }
    drop(stream);
    let mut status = 0;
    // SAFETY: the child is ours, and the status is alive.
    check(unsafe { waitpid(child, &mut status, 0) }).map(drop)
}

fn fill(directory: &Path, count: u64, size: usize) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let content = vec![b'x'; size];
    for n in 0..count {
        fs::write(directory.join(format!("entry-{n:07}")), &content)?;
    }
    Ok(())
}

fn ready(socket: &str, program: &str, arguments: &[&str]) -> io::Result<()> {
    let start = Instant::now();
    let mut child = Command::new(program).args(arguments).spawn()?;
    while UnixStream::connect(socket).is_err() {
        if start.elapsed() > Duration::from_secs(30) || child.try_wait()?.is_some() {
            panic!("{program} does not listen at {socket}");
        }
        thread::sleep(Duration::from_micros(200));
    }
    println!("{}", start.elapsed().as_micros());
    child.kill()?;
    child.wait().map(drop)
}
