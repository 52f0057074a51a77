//! A hostile neighbour: what an unprivileged user does to a guest that others work in. Static, built by tests/build.rs,
//! carried by the suites, put into the guest as a file and run there as one of its users.
//!
//! `neighbour MODE [ARGUMENTS]` says `ready` on stdout once its attack is under way, and goes on until its stdin ends. Then
//! it says in one line what it came to. One that `knock`s says that at once: it connects to `unix:PATH` or
//! `vsock:CID:PORT`, says a hello as root, and tells what it hears: `closed` or `answered TEXT`. `cid` tells the machine's
//! own. Modes:
//!   - `swap A B` exchanges two names at full speed: `swapped COUNT`;
//!   - `harm` stops, kills, traces and reads every process that is not of its own uid: `tried COUNT harmed COUNT`;
//!   - `memory` eats memory in a child, and begins again whenever that is killed, from the first such end on:
//!     `eaten MIB` of the largest;
//!   - `pids` starts processes until the kernel refuses, and keeps trying: `started COUNT`;
//!   - `descriptors` opens files in process after process, until the kernel refuses: `opened COUNT`;
//!   - `watches` takes inotify instances and watches until the kernel refuses: `watches COUNT`;
//!   - `terminals` opens pseudo-terminals until the kernel refuses: `terminals COUNT`;
//!   - `report PID` takes that process's control socket, as who has a worker in hand, and says on it without a pause that a
//!     group is needed no more: `sent COUNT in MILLISECONDS`;
//!   - `squat PORT` binds that vsock port again and again: `bound COUNT refused COUNT`;
//!   - `disk PATH` fills the file system until there is no room, and keeps filling: `written MIB`.

use std::{
    env,
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

mod libc {
    use std::ffi::{c_char, c_int, c_long, c_uint, c_void};

    pub const SIGKILL: c_int = 9;
    pub const SIGSTOP: c_int = 19;
    pub const WNOHANG: c_int = 1;
    pub const PTRACE_SEIZE: c_uint = 0x4206;
    pub const RENAME_EXCHANGE: c_uint = 2;
    pub const AT_FDCWD: c_int = -100;
    pub const IN_ALL_EVENTS: u32 = 0xfff;
    pub const SYS_RENAMEAT2: c_long = 316;
    pub const RLIMIT_NOFILE: c_int = 7;
    pub const SYS_PIDFD_OPEN: c_long = 434;
    pub const SYS_PIDFD_GETFD: c_long = 438;
    pub const SOL_SOCKET: c_int = 1;
    pub const SO_TYPE: c_int = 3;
    pub const SOCK_SEQPACKET: c_int = 5;

    #[repr(C)]
    pub struct Iovec {
        pub base: *mut c_void,
        pub length: usize,
    }

    pub const AF_VSOCK: c_int = 40;
    pub const SOCK_STREAM: c_int = 1;
    pub const VMADDR_CID_ANY: u32 = u32::MAX;
    pub const IOCTL_VM_SOCKETS_GET_LOCAL_CID: c_long = 0x7b9;

    /// Of linux/vm_sockets.h.
    #[repr(C)]
    #[derive(Default)]
    pub struct SockaddrVm {
        pub family: u16,
        pub reserved: u16,
        pub port: u32,
        pub cid: u32,
        pub zero: [u8; 4],
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Rlimit {
        pub current: u64,
        pub maximum: u64,
    }

    unsafe extern "C" {
        pub fn kill(pid: c_int, signal: c_int) -> c_int;
        pub fn fork() -> c_int;
        pub fn getuid() -> c_uint;
        pub fn pause() -> c_int;
        pub fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
        pub fn ptrace(request: c_uint, ...) -> c_long;
        pub fn process_vm_readv(
            pid: c_int,
            local: *const Iovec,
            locals: usize,
            remote: *const Iovec,
            remotes: usize,
            flags: usize,
        ) -> isize;
        pub fn syscall(number: c_long, ...) -> c_long;
        pub fn inotify_init() -> c_int;
        pub fn inotify_add_watch(fd: c_int, path: *const c_char, mask: u32) -> c_int;
        pub fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
        pub fn bind(fd: c_int, address: *const SockaddrVm, length: c_uint) -> c_int;
        pub fn connect(fd: c_int, address: *const SockaddrVm, length: c_uint) -> c_int;
        pub fn getsockopt(
            fd: c_int,
            level: c_int,
            name: c_int,
            value: *mut c_int,
            length: *mut c_uint,
        ) -> c_int;
        pub fn ioctl(fd: c_int, request: c_long, ...) -> c_int;
        pub fn getrlimit(resource: c_int, limit: *mut Rlimit) -> c_int;
        pub fn setrlimit(resource: c_int, limit: *const Rlimit) -> c_int;
    }
}

/// Whether its stdin has ended.
static ENDED: AtomicBool = AtomicBool::new(false);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        ENDED.store(true, Relaxed);
    });
    match words[..] {
        ["swap", one, other] => swap(one, other),
        ["harm"] => harm(),
        ["memory"] => eat_memory(),
        ["pids"] => start_processes(),
        ["descriptors"] => open_files(),
        ["watches"] => take_watches(),
        ["terminals"] => open_terminals(),
        ["disk", path] => fill(path),
        ["report", pid] => report(pid.parse().expect("a pid")),
        ["squat", port] => squat(port.parse().expect("a port")),
        ["knock", address] => knock(address),
        ["cid"] => tell_cid(),
        _ => panic!("usage: neighbour MODE [ARGUMENTS]"),
    }
}

fn ended() -> bool {
    ENDED.load(Relaxed)
}

fn wait_for_the_end() {
    while !ended() {
        thread::sleep(Duration::from_millis(10));
    }
}

fn text(path: &str) -> CString {
    CString::new(path).expect("no NUL")
}

fn swap(one: &str, other: &str) -> io::Result<()> {
    let (one, other) = (text(one), text(other));
    let mut swapped = 0_u64;
    while !ended() {
        let result = unsafe {
            libc::syscall(
                libc::SYS_RENAMEAT2,
                libc::AT_FDCWD,
                one.as_ptr(),
                libc::AT_FDCWD,
                other.as_ptr(),
                libc::RENAME_EXCHANGE,
            )
        };
        // Whoever is attacked may have removed one of them: it is made again by who runs us.
        if result == 0 {
            swapped += 1;
            if swapped == 1 {
                println!("ready");
            }
        }
    }
    println!("swapped {swapped}");
    Ok(())
}

fn harm() -> io::Result<()> {
    println!("ready");
    let own = unsafe { libc::getuid() };
    let (mut tried, mut harmed) = (0_u64, 0_u64);
    while !ended() || tried == 0 {
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t"));
            let uid = uid.and_then(|line| line.split('\t').next()?.parse().ok());
            if uid.is_none_or(|uid: u32| uid == own) {
                continue;
            }
            tried += 1;
            harmed += u64::from(is_harmed(pid));
        }
    }
    println!("tried {tried} harmed {harmed}");
    Ok(())
}

fn is_harmed(pid: i32) -> bool {
    let mut byte = 0_u8;
    let local = libc::Iovec { base: (&raw mut byte).cast(), length: 1 };
    let remote = libc::Iovec { base: ptr::without_provenance_mut(0x40_0000), length: 1 };
    let (none, seize) = (ptr::null_mut::<u8>(), libc::PTRACE_SEIZE);
    let errno = || io::Error::last_os_error().raw_os_error();
    const ESRCH: Option<i32> = Some(3);
    const EPERM: Option<i32> = Some(1);
    let refused = |result: bool| !result && matches!(errno(), EPERM | ESRCH);
    let traced = !refused(unsafe { libc::ptrace(seize, pid, none, none) } == 0);
    // EFAULT would mean that it was looked for.
    let read = !refused(unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) } > 0);
    let stopped = !refused(unsafe { libc::kill(pid, libc::SIGSTOP) } == 0);
    let killed = !refused(unsafe { libc::kill(pid, libc::SIGKILL) } == 0);
    let written = fs::write(format!("/proc/{pid}/oom_score_adj"), "1000").is_ok();
    traced || read || stopped || killed || written
}

fn eat_memory() -> io::Result<()> {
    let (mut largest, mut said) = (0, false);
    while !ended() {
        let (mut reader, mut writer) = io::pipe()?;
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(reader);
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            loop {
                // Written to, so that it is there.
                eaten.push(vec![1; 1 << 20]);
                let _ = writer.write_all(&[1]);
            }
        }
        drop(writer);
        let mut status = 0;
        while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
            if ended() {
                unsafe { libc::kill(child, libc::SIGKILL) };
            }
            thread::sleep(Duration::from_millis(5));
        }
        let mut reported = Vec::new();
        reader.read_to_end(&mut reported)?;
        largest = largest.max(reported.len());
        if !said {
            println!("ready");
            said = true;
        }
    }
    println!("eaten {largest}");
    Ok(())
}

fn start_processes() -> io::Result<()> {
    let mut children = Vec::new();
    let mut said = false;
    while !ended() {
        match unsafe { libc::fork() } {
            0 => loop {
                unsafe { libc::pause() };
            },
            child if child > 0 => children.push(child),
            _ => {
                if !said {
                    println!("ready");
                    said = true;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    for child in &children {
        unsafe { libc::kill(*child, libc::SIGKILL) };
    }
    for child in &children {
        let mut status = 0;
        unsafe { libc::waitpid(*child, &mut status, 0) };
    }
    println!("started {}", children.len());
    Ok(())
}

/// As many as a process of this user may have.
fn allow_many_files() {
    let mut limit = libc::Rlimit::default();
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.current = limit.maximum;
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}

/// In twenty processes, each with as many files as it may have.
fn open_files() -> io::Result<()> {
    allow_many_files();
    let (mut reader, writer) = io::pipe()?;
    let mut children = Vec::new();
    for _ in 0..20 {
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut opened = Vec::new();
            while opened.len() < 50_000
                && let Ok(file) = File::open("/dev/null")
            {
                opened.push(file);
            }
            let _ = (&writer).write_all(&(opened.len() as u64).to_ne_bytes());
            loop {
                unsafe { libc::pause() };
            }
        }
        if child > 0 {
            children.push(child);
        }
    }
    let mut opened = 0;
    for _ in &children {
        let mut count = [0; 8];
        reader.read_exact(&mut count)?;
        opened += u64::from_ne_bytes(count);
    }
    println!("ready");
    wait_for_the_end();
    for child in children {
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    println!("opened {opened}");
    Ok(())
}

fn take_watches() -> io::Result<()> {
    let mut instances = Vec::new();
    let mut watches = 0_u64;
    loop {
        let instance = unsafe { libc::inotify_init() };
        if instance < 0 {
            break;
        }
        instances.push(unsafe { OwnedFd::from_raw_fd(instance) });
        for path in ["/", "/proc", "/dev", "/tmp", "/etc", "/usr"] {
            let mask = libc::IN_ALL_EVENTS;
            watches +=
                u64::from(unsafe { libc::inotify_add_watch(instance, text(path).as_ptr(), mask) } >= 0);
        }
    }
    println!("ready");
    wait_for_the_end();
    println!("watches {watches} of {}", instances.len());
    Ok(())
}

fn open_terminals() -> io::Result<()> {
    allow_many_files();
    let mut terminals = Vec::new();
    while let Ok(terminal) = File::options().read(true).write(true).open("/dev/ptmx") {
        terminals.push(terminal);
    }
    println!("ready");
    wait_for_the_end();
    println!("terminals {}", terminals.len());
    Ok(())
}

fn fill(path: &str) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let mut file = File::create(path)?;
    let mut said = false;
    let chunk = vec![1; 1 << 20];
    while !ended() {
        match file.write_all(&chunk) {
            Ok(()) => drop(WRITTEN.fetch_add(1, Relaxed)),
            Err(_) => {
                if !said {
                    println!("ready");
                    said = true;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    fs::remove_file(path)?;
    println!("written {}", WRITTEN.load(Relaxed));
    Ok(())
}

/// A vsock socket, once `act` has done with its address what it wants.
fn vsock(
    cid: u32,
    port: u32,
    act: unsafe extern "C" fn(i32, *const libc::SockaddrVm, u32) -> i32,
) -> io::Result<File> {
    let family = libc::AF_VSOCK as u16;
    let address = libc::SockaddrVm { family, port, cid, ..Default::default() };
    let socket = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = unsafe { File::from_raw_fd(socket) };
    let length = size_of::<libc::SockaddrVm>() as u32;
    match unsafe { act(socket.as_raw_fd(), &address, length) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The one socket of a worker that keeps messages apart.
fn control_of(pid: i32) -> io::Result<OwnedFd> {
    let own = |number: i64| match number {
        -1 => Err(io::Error::last_os_error()),
        number => Ok(unsafe { OwnedFd::from_raw_fd(number as i32) }),
    };
    let pidfd = own(unsafe { libc::syscall(libc::SYS_PIDFD_OPEN, pid, 0) })?;
    for number in 0..1024 {
        let taken =
            own(unsafe { libc::syscall(libc::SYS_PIDFD_GETFD, pidfd.as_raw_fd(), number, 0) });
        let Ok(taken) = taken else { continue };
        let (mut kind, mut length) = (0_i32, 4_u32);
        let told = unsafe {
            libc::getsockopt(taken.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TYPE, &mut kind, &mut length)
        };
        if told == 0 && kind == libc::SOCK_SEQPACKET {
            return Ok(taken);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn report(pid: i32) -> io::Result<()> {
    // `Report::Release` of agent/src/control.rs, of a group `x`.
    const RELEASE: [u8; 3] = [7, 1, b'x'];
    let mut control = File::from(control_of(pid)?);
    let (since, mut sent) = (Instant::now(), 0_u64);
    while !ended() || sent == 0 {
        match control.write_all(&RELEASE) {
            Ok(()) => {
                sent += 1;
                if sent == 1 {
                    println!("ready");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    println!("sent {sent} in {}", since.elapsed().as_millis());
    Ok(())
}

fn squat(port: u32) -> io::Result<()> {
    let (mut bound, mut refused) = (0_u64, 0_u64);
    while !ended() || bound + refused == 0 {
        match vsock(libc::VMADDR_CID_ANY, port, libc::bind) {
            Ok(_) => bound += 1,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused += 1,
            Err(error) => return Err(error),
        }
        if bound + refused == 1 {
            println!("ready");
        }
    }
    println!("bound {bound} refused {refused}");
    Ok(())
}

fn knock(address: &str) -> io::Result<()> {
    let words: Vec<&str> = address.splitn(3, ':').collect();
    let mut stream: File = match words[..] {
        ["unix", path] => OwnedFd::from(UnixStream::connect(path)?).into(),
        ["vsock", cid, port] => {
            let number = |word: &str| word.parse().expect("a number");
            vsock(number(cid), number(port), libc::connect)?
        }
        _ => panic!("no address {address}"),
    };
    let _ = stream.write_all(b"guestline/1 user=root\n");
    let mut answer = [0; 1024];
    match stream.read(&mut answer) {
        Ok(0) | Err(_) => println!("closed"),
        Ok(length) => println!("answered {}", String::from_utf8_lossy(&answer[..length]).trim_end()),
    }
    Ok(())
}

fn tell_cid() -> io::Result<()> {
    let device = File::open("/dev/vsock")?;
    let mut cid = 0_u32;
    let request = libc::IOCTL_VM_SOCKETS_GET_LOCAL_CID;
    if unsafe { libc::ioctl(device.as_raw_fd(), request, &mut cid) } < 0 {
        return Err(io::Error::last_os_error());
    }
    println!("{cid}");
    Ok(())
}
