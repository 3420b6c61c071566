use super::request::Incoming;
use super::*;
use mpreg_patterns::base::*;
use mpreg_patterns::values::*;
use std::hint::black_box;
use std::time::Instant;
fn per(name: &str, ops: usize, mut f: impl FnMut()) {
    for _ in 0..50 {
        f();
    }
    let mut best = f64::MAX;
    for _ in 0..7 {
        let t = Instant::now();
        let mut n = 0;
        while t.elapsed().as_millis() < 60 {
            for _ in 0..16 {
                f();
            }
            n += 16;
        }
        let s = t.elapsed().as_secs_f64();
        best = best.min(s / n as f64 / ops as f64 * 1e9);
    }
    println!("{name:50} {best:8.1} ns/op");
}
#[test]
fn bench() {
    let payload = format!("[\"{}\"]", "x".repeat(60));
    let limits = Limits::default();
    let mut b = Batch::new(Encoding::Bincode);
    let mut j = Batch::new(Encoding::Json);
    for n in 0..100 {
        let r = Request::Call(mpreg_patterns::ops::Call {
            id: format!("c{n:08}").into(),
            fun: "bench.echo".into(),
            args: Some(Value::json(payload.clone())),
            ..Default::default()
        });
        b.push(&r).unwrap();
        j.push(&r).unwrap();
    }
    let f = b.finish().unwrap();
    let jf = j.finish().unwrap();
    per("ops only", 100, || {
        let (mut o, _) = binary::Ops::open(&f).unwrap();
        while let Some(op) = o.next().unwrap() {
            black_box(&op);
        }
    });
    let (mut o, _) = binary::Ops::open(&f).unwrap();
    let mut all = vec![];
    while let Some(op) = o.next().unwrap() {
        all.push(op);
    }
    let context = request::Context { body: &f, limits: &limits };
    per("from_op", 100, || {
        for op in &all {
            let _ = black_box(Request::from_op(op, &context));
        }
    });
    per("value", 100, || {
        for op in &all {
            if let op::Op::Call { args: Some(a), .. } = op {
                black_box(context.value(a));
            }
        }
    });
    per("name", 100, || {
        for op in &all {
            if let op::Op::Call { fun, .. } = op {
                let _ = black_box(request::name("fun", fun));
            }
        }
    });
    per("json objects", 100, || {
        let mut c = Cursor::new(Kind::Json, &jf, 128);
        let mut a = c.array().unwrap();
        while c.item(&mut a).unwrap() {
            let _ = black_box(read::object(&mut c, &limits));
        }
    });
    per("json skip", 100, || {
        let mut c = Cursor::new(Kind::Json, &jf, 128);
        let mut a = c.array().unwrap();
        while c.item(&mut a).unwrap() {
            let _ = black_box(c.skip());
        }
    });
    per("json keys", 100, || {
        let mut c = Cursor::new(Kind::Json, &jf, 128);
        let mut a = c.array().unwrap();
        while c.item(&mut a).unwrap() {
            let mut m = c.map().unwrap();
            while let Some(k) = c.any_key(&mut m).unwrap() {
                black_box(k);
                c.skip().unwrap();
            }
        }
    });
}
