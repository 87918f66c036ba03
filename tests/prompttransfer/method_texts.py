"""Settings under which each method is tested; every entry of METHODS has at least one."""

TEXTS = {
    "prompt": ("prompt:length=3",),
    "p-tuning": (
        "p-tuning:length=3,hidden=8",
        "p-tuning:length=3,encoder=mlp,hidden=8",
        "p-tuning:length=3,hidden=8,free=1",
    ),
    "residual": ("residual:length=3,hidden=8", "residual:length=3,hidden=8,separate=true,norm=false"),
    "ulpt": ("ulpt:length=3,rank=4",),
    "dept": ("dept:length=3,rank=4,positions=96",),
    "mpt": ("mpt:length=3", "mpt:length=3,rank=2,ratio=2"),
    "attempt": ("attempt:length=3,hidden=4,sources=random:2,temperature=2",),
    "dtvg": ("dtvg:length=3,sources=random:3",),
    "particles": ("particles:length=3,rows=10",),
    "bmtpt": ("bmtpt:length=3,sources=random:3",),
    "lora": ("lora:rank=2", "lora:rank=3,alpha=5,stabilised=true"),
    "lora-plus": ("lora-plus:rank=2,alpha=2,ratio=2",),
    "lora-fa": ("lora-fa:rank=2",),
    "delta-lora": ("delta-lora:rank=2,alpha=2,begin=0", "delta-lora:rank=2,alpha=2,stabilised=true"),
    "dora": ("dora:rank=2",),
    "adalora": ("adalora:rank=3,target=2",),
    "vera": ("vera:rank=24",),
    "ia3": ("ia3",),
    "bitfit": ("bitfit",),
    "prefix": ("prefix:length=3,hidden=8",),
    "p-tuning-v2": ("p-tuning-v2:length=3",),
    "houlsby": ("houlsby:bottleneck=4", "houlsby:bottleneck=4,activation=tanh"),
    "pfeiffer": ("pfeiffer:reduction=4",),
    "probe": ("probe",),
    "text": ('text:prompt="is it good and bad"',),
    "text-search": ("text-search:length=3,candidates=6,beam=2,rows=8",),
    "in-context": ("in-context:k=2",),
    "full": ("full", "full:keep=all"),
}
LACKS = {("t5", "bitfit"), ("t5-v1.1", "bitfit"), ("llama", "bitfit"), ("gpt2", "ia3")}
"""Kinds of backbones without what a method changes: T5 and Llama have no biases, GPT-2 no keys apart from its queries."""
