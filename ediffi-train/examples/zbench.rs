#[global_allocator]
static A: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
use ediffi_core::{conditioning::Conditioning, unet::*, weights::*};
use tch::*;
fn main() {
    let a: Vec<i64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let (ch, b0, b1, rows, patch, ca0) = (a[0], a[1] as usize, a[2] as usize, a[3], a[4], a[5]==1);
    let size = a.get(6).copied().unwrap_or(64);
    let cfg = UNetConfig { layout: Layout::Efficient, low_res: false, patch, channels: ch, levels: vec![
        Level{multiplier:1,blocks:b0,self_attention:false,cross_attention:ca0}, Level{multiplier:2,blocks:b1,self_attention:true,cross_attention:true}],
        head_channels: 64.min(ch), norm_groups: 16, embedding_width: 384,
        context: Some(ContextConfig{width:128,t5:Some(Tokens{tokens:32,width:128}),clip_text:Some(ClipText{tokens:32,width:128,pooled:128}),clip_image:Some(128)})};
    println!("params {}", Table::of(|s| UNet::new(s,&cfg,Kind::Float)).unwrap().elements());
    let mut f = Fresh::new(1, Device::Cpu);
    let net = UNet::new(Scope::root(&mut f), &cfg, Kind::Float).unwrap();
    let named: Vec<_> = f.into_named().into_iter().map(|(n,t)|(n,t.set_requires_grad(true))).collect();
    let mut st = ediffi_train::state::TrainState::new(named, Default::default(), 0.999).unwrap();
    let x = Tensor::randn([rows,3,size,size],(Kind::Float,Device::Cpu));
    let c = Tensor::randn([rows],(Kind::Float,Device::Cpu));
    for it in 0..8 {
        let t=std::time::Instant::now();
        let ctx = net.context(&Conditioning::default(), rows).unwrap();
        let y = net.forward(&x,&c,&ctx,None).unwrap();
        let l = (y-&x).square().mean(Kind::Float);
        let t1=t.elapsed();
        l.backward();
        let t2=t.elapsed();
        st.update(rows as u64,1).unwrap();
        let t3=t.elapsed();
        if it>3 { println!("fwd {:?} bwd {:?} opt {:?}  {:.1} img/s", t1, t2-t1, t3-t2, rows as f64/t3.as_secs_f64()); }
    }
    let _g = no_grad_guard();
    let ctx = net.context(&Conditioning::default(), 2).unwrap();
    let x2=x.narrow(0,0,2); let c2=c.narrow(0,0,2);
    let t=std::time::Instant::now(); for _ in 0..5 { net.forward(&x2,&c2,&ctx,None).unwrap(); } println!("2-row eval {:?}", t.elapsed()/5);
}
