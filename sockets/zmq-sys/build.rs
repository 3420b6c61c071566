//! Builds libzmq 4.3.5 as a static library: draft API on, CURVE through libsodium, the features
//! of Linux switched on, and a few corrections.
//!
//! `zeromq-src` carries the sources and compiles them, but it offers no platform configuration
//! and no way to correct a file. Both are done around it:
//!
//! * The configuration that libzmq's own `configure` would have found goes into CXXFLAGS, which
//!   `cc` reads.
//! * After the build, the files on a message's way are compiled once more, with the same settings
//!   and some of them corrected, as one: so the compiler sees from one into the other. The object
//!   takes the places of the originals in the archive.
//!
//! Needed on the machine: a C and C++ compiler, make and sh (the last two for libsodium).

use std::path::{Path, PathBuf};
use std::{env, fs};

/// What libzmq may use on Linux, each passed as `-DNAME=1`.
const PLATFORM: &[&str] = &[
    // Time, processes, memory.
    "HAVE_CLOCK_GETTIME",
    "HAVE_FORK",
    "HAVE_MKDTEMP",
    "HAVE_POSIX_MEMALIGN",
    // Waking a thread, waiting for descriptors.
    "ZMQ_HAVE_EVENTFD",
    "ZMQ_HAVE_EVENTFD_CLOEXEC",
    "ZMQ_IOTHREAD_POLLER_USE_EPOLL_CLOEXEC",
    "ZMQ_HAVE_PPOLL",
    "ZMQ_HAVE_BUSY_POLL",
    // Descriptors that a child process does not inherit.
    "HAVE_ACCEPT4",
    "ZMQ_HAVE_O_CLOEXEC",
    "ZMQ_HAVE_SOCK_CLOEXEC",
    // Network interfaces and socket options.
    "HAVE_IF_NAMETOINDEX",
    "ZMQ_HAVE_IFADDRS",
    "ZMQ_HAVE_SO_BINDTODEVICE",
    "ZMQ_HAVE_SO_KEEPALIVE",
    "ZMQ_HAVE_SO_PEERCRED",
    "ZMQ_HAVE_SO_PRIORITY",
    "ZMQ_HAVE_TCP_KEEPCNT",
    "ZMQ_HAVE_TCP_KEEPIDLE",
    "ZMQ_HAVE_TCP_KEEPINTVL",
    // Threads and language.
    "ZMQ_HAVE_PTHREAD_SETNAME_2",
    "ZMQ_HAVE_PTHREAD_SET_AFFINITY",
    "ZMQ_HAVE_NOEXCEPT",
];

/// What `zeromq-src` defines for Linux with the draft API and libsodium. The corrected files must
/// be compiled with exactly these: they decide the layout of libzmq's classes.
const ZEROMQ_SRC: &[(&str, &str)] = &[
    ("ZMQ_BUILD_TESTS", "OFF"),
    ("ZMQ_BUILD_DRAFT_API", "1"),
    ("ZMQ_USE_CV_IMPL_STL11", "1"),
    ("ZMQ_STATIC", "1"),
    ("ZMQ_USE_BUILTIN_SHA1", "1"),
    ("ZMQ_HAVE_WS", "1"),
    ("ZMQ_USE_LIBSODIUM", "1"),
    ("ZMQ_HAVE_CURVE", "1"),
    ("ZMQ_HAVE_LINUX", "1"),
    ("ZMQ_IOTHREAD_POLLER_USE_EPOLL", "1"),
    ("ZMQ_POLL_BASED_ON_POLL", "1"),
    ("ZMQ_HAVE_IPC", "1"),
    ("HAVE_STRNLEN", "1"),
    ("ZMQ_HAVE_UIO", "1"),
    ("ZMQ_HAVE_STRUCT_SOCKADDR_UN", "1"),
];

/// The files that a message goes through, from the descriptor to the application and back. Their
/// functions are short and call each other across files; see docs/decisions/0002.
const ON_THE_WAY: &[&str] = &[
    // Messages and what carries them from thread to thread.
    "msg.cpp",
    "metadata.cpp",
    "clock.cpp",
    "err.cpp",
    "signaler.cpp",
    "mailbox.cpp",
    "mailbox_safe.cpp",
    "object.cpp",
    "own.cpp",
    "pipe.cpp",
    // Choosing among pipes.
    "fq.cpp",
    "lb.cpp",
    "dist.cpp",
    "mtrie.cpp",
    "trie.cpp",
    "radix_tree.cpp",
    // The network.
    "decoder_allocators.cpp",
    "v2_decoder.cpp",
    "v2_encoder.cpp",
    "v3_1_encoder.cpp",
    "tcp.cpp",
    "epoll.cpp",
    "poller_base.cpp",
    "io_object.cpp",
    "io_thread.cpp",
    "stream_engine_base.cpp",
    "zmtp_engine.cpp",
    "session_base.cpp",
    // Sockets.
    "socket_base.cpp",
    "router.cpp",
    "dealer.cpp",
    "pair.cpp",
    "xpub.cpp",
    "xsub.cpp",
    "pub.cpp",
    "sub.cpp",
    "push.cpp",
    "pull.cpp",
    "proxy.cpp",
    "zmq.cpp",
];

/// One change to one file of libzmq: `before` occurs exactly once and becomes `after`.
struct Correction {
    file: &'static str,
    before: &'static str,
    after: &'static str,
}

const CORRECTIONS: &[Correction] = &[
    // In manual mode an XPUB remembers the pipe of every subscription that the application has
    // not read yet. When such a pipe dies, 4.3.5 keeps the dead pointer, and a later recv uses it
    // after it was freed. NULL is what the queue holds for "no pipe".
    Correction {
        file: "xpub.cpp",
        before: "void zmq::xpub_t::xpipe_terminated (pipe_t *pipe_)\n{\n",
        after: "void zmq::xpub_t::xpipe_terminated (pipe_t *pipe_)\n{\n\
            for (std::deque<pipe_t *>::size_type i = 0; i != _pending_pipes.size (); ++i)\n\
                if (_pending_pipes[i] == pipe_)\n\
                    _pending_pipes[i] = NULL;\n\n",
    },
    // What a connection holds is a set, and a death tells each text once; but in manual mode each
    // subscription is told, a second one for a text that is held too, and the end of one that was
    // never begun. Told are changes of the set alone, so that whoever counts them counts right.
    Correction {
        file: "xpub.cpp",
        before: "                if (!subscribe)\n\
            \x20                   _manual_subscriptions.rm (data, size, pipe_);\n\
            \x20               else\n\
            \x20                   _manual_subscriptions.add (data, size, pipe_);\n",
        after: "                const bool held =\n\
            \x20                 _manual_subscriptions.rm (data, size, pipe_)\n\
            \x20                 != mtrie_t::not_found;\n\
            \x20               if (subscribe)\n\
            \x20                   _manual_subscriptions.add (data, size, pipe_);\n\
            \x20               if (held == subscribe) {\n\
            \x20                   msg.close ();\n\
            \x20                   continue;\n\
            \x20               }\n",
    },
    // The queue of pipes goes along with the queue of what was told; a message of an XSUB's user is
    // put into the second alone, so that the subscriptions behind it go to the wrong connections.
    Correction {
        file: "xpub.cpp",
        before: "            _pending_data.push_back (blob_t (msg_data, msg.size ()));\n",
        after: "            if (_manual)\n                _pending_pipes.push_back (NULL);\n\
            \x20           _pending_data.push_back (blob_t (msg_data, msg.size ()));\n",
    },
    // A reader tells its writer what it has read after each half of what may wait, thousands of
    // messages where so many may. Until then one that reads looks like one that does not, once
    // fewer may wait: so it tells more often, and whenever that changes.
    Correction {
        file: "pipe.cpp",
        before: "    const int result = (hwm_ + 1) / 2;\n",
        after: "    const int result = std::min ((hwm_ + 1) / 2, 64);\n",
    },
    Correction {
        file: "pipe.cpp",
        before: "    set_hwms (inhwm_, outhwm_);\n",
        after: "    set_hwms (inhwm_, outhwm_);\n\
            \x20   if (_state == active)\n\
            \x20       send_activate_write (_peer, _msgs_read);\n",
    },
    // A peer that names itself as the ROUTER is about to name an unnamed one makes it abort, and
    // the names are easily guessed. Names that start with zero are the ROUTER's: a peer that
    // claims one is treated as unnamed.
    Correction {
        file: "router.cpp",
        before: "if (msg.size () == 0) {\n",
        after: "if (msg.size () == 0 || *static_cast<unsigned char *> (msg.data ()) == 0) {\n",
    },
    // With heartbeats, a peer that is reset while its queue is full makes the next heartbeat
    // abort. Nothing can be written then; restart_output returns in the same case.
    Correction {
        file: "stream_engine_base.cpp",
        before: "void zmq::stream_engine_base_t::out_event ()\n{\n    zmq_assert (!_io_error);\n",
        after: "void zmq::stream_engine_base_t::out_event ()\n{\n    if (unlikely (_io_error))\n\
            return;\n",
    },
    // A client that reconnected while its queue was full aborts when the application reads: the
    // news that there is room was meant for the old connection. The new one is not waiting.
    Correction {
        file: "stream_engine_base.cpp",
        before: "    zmq_assert (_input_stopped);\n",
        after: "    if (unlikely (!_input_stopped))\n        return true;\n",
    },
    // A connection that the application keeps waiting is not read, so the answer to a PING may
    // stand unread behind what waits. That silence is our own: no reason to give the peer up.
    Correction {
        file: "stream_engine_base.cpp",
        before: "    } else if (id_ == heartbeat_timeout_timer_id) {\n\
            \x20       _has_timeout_timer = false;\n",
        after: "    } else if (id_ == heartbeat_timeout_timer_id && _input_stopped) {\n\
            \x20       add_timer (_options.heartbeat_timeout > 0\n\
            \x20                    ? _options.heartbeat_timeout\n\
            \x20                    : _options.heartbeat_interval,\n\
            \x20                  heartbeat_timeout_timer_id);\n\
            \x20   } else if (id_ == heartbeat_timeout_timer_id) {\n\
            \x20       _has_timeout_timer = false;\n",
    },
    // ZMTP 3.0 has no PING, so a peer that speaks it (the pure-Rust `zeromq` crate) takes one for
    // nonsense and hangs up. Such a peer gets no heartbeats, as if their timer were set already;
    // 3.1, which libzmq speaks since 4.2, has them.
    Correction {
        file: "zmtp_engine.cpp",
        before: "bool zmq::zmtp_engine_t::handshake_v3_0 ()\n{\n",
        after: "bool zmq::zmtp_engine_t::handshake_v3_0 ()\n{\n    _has_heartbeat_timer = true;\n",
    },
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MPREG_ASAN");
    let target_os = env_path("CARGO_CFG_TARGET_OS");
    assert!(target_os == Path::new("linux"), "this build of libzmq is configured for Linux only");

    let sodium_lib = env_path("DEP_SODIUM_LIB");
    let sodium_include = env_path("DEP_SODIUM_INCLUDE");
    let out_dir = env_path("OUT_DIR");

    set_cxxflags();
    zeromq_src::Build::new()
        .enable_draft(true)
        .with_libsodium(Some(zeromq_src::LibLocation::new(sodium_lib, &sodium_include)))
        .build();

    write_corrected(&out_dir);
    let object = compile_as_one(ON_THE_WAY, &out_dir, &sodium_include);
    replace_members(&out_dir.join("lib").join("libzmq.a"), ON_THE_WAY, &object);
}

/// A variable that cargo, or the build script of libsodium, must have set.
fn env_path(name: &str) -> PathBuf {
    match env::var_os(name) {
        Some(value) => PathBuf::from(value),
        None => panic!("{name} is not set; was SODIUM_LIB_DIR given without its headers?"),
    }
}

/// Appends the platform configuration to CXXFLAGS, for every later use of `cc` in this process.
fn set_cxxflags() {
    let mut flags = env::var("CXXFLAGS").unwrap_or_default();
    for name in PLATFORM {
        flags.push_str(&format!(" -D{name}=1"));
    }
    flags.push_str(" -DZMQ_CACHELINE_SIZE=64");
    // For scripts/asan: libzmq tells when it uses memory that it gave back.
    if env::var_os("MPREG_ASAN").is_some() {
        flags.push_str(" -fsanitize=address -fno-omit-frame-pointer -g1");
    }
    // Cargo shows the warnings of a path crate; those of libzmq are not ours to act on.
    flags.push_str(" -w");
    // SAFETY: a build script has one thread at this point.
    unsafe { env::set_var("CXXFLAGS", flags) };
}

/// Writes copies of the files that have corrections, where they are found before the originals.
fn write_corrected(out_dir: &Path) {
    let corrected = out_dir.join("corrected");
    fs::create_dir_all(&corrected).expect("OUT_DIR is writable");
    let mut files: Vec<&str> = CORRECTIONS.iter().map(|correction| correction.file).collect();
    files.dedup();
    for file in files {
        assert!(ON_THE_WAY.contains(&file), "{file} would not be compiled again");
        let original = out_dir.join("source").join("src").join(file);
        let mut text = fs::read_to_string(&original).expect("zeromq-src leaves its sources here");
        for correction in CORRECTIONS.iter().filter(|correction| correction.file == file) {
            let found = text.matches(correction.before).count();
            assert_eq!(found, 1, "{file} is not the text that its correction was written for");
            text = text.replace(correction.before, correction.after);
        }
        fs::write(corrected.join(file), text).expect("OUT_DIR is writable");
    }
}

/// Compiles the files as `zeromq-src` compiled them, but as one, and returns the object.
fn compile_as_one(files: &[&str], out_dir: &Path, sodium_include: &Path) -> PathBuf {
    let (source, corrected) = (out_dir.join("source"), out_dir.join("corrected"));
    let one = corrected.join("on_the_way.cpp");
    let text: String = files.iter().map(|file| format!("#include \"{file}\"\n")).collect();
    fs::write(&one, text).expect("OUT_DIR is writable");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++11")
        .include(source.join("include"))
        .include(source.join("src"))
        .include(source.join("external").join("sha1"))
        .include(sodium_include)
        // Holds the empty platform.hpp that zeromq-src wrote.
        .include(out_dir)
        .out_dir(&corrected)
        // The archive ends in an executable, where nobody puts another function in place of one:
        // without this, none that could be is inlined.
        .flag_if_supported("-fno-semantic-interposition")
        .file(one);
    for (name, value) in ZEROMQ_SRC {
        build.define(name, *value);
    }
    build.compile_intermediates().remove(0)
}

/// Puts `object` into `archive`, in place of what was compiled of each of `files`.
fn replace_members(archive: &Path, files: &[&str], object: &Path) {
    let members = run_archiver(&["t"], archive, &[]);
    let mut replaced = Vec::new();
    for file in files {
        let suffix = format!("-{}", file.replace(".cpp", ".o"));
        let found: Vec<&str> = members.lines().filter(|name| name.ends_with(&suffix)).collect();
        let [member] = found[..] else {
            panic!("expected one member *{suffix} in {}, found {found:?}", archive.display());
        };
        replaced.push(Path::new(member));
    }
    run_archiver(&["d"], archive, &replaced);
    run_archiver(&["rs"], archive, &[object]);
}

/// Runs `ar` (the one that `cc` chose) and returns what it printed.
fn run_archiver(operation: &[&str], archive: &Path, members: &[&Path]) -> String {
    let mut archiver = cc::Build::new().get_archiver();
    archiver.args(operation).arg(archive).args(members);
    let output = archiver.output().expect("ar can be started");
    assert!(
        output.status.success(),
        "ar {operation:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
