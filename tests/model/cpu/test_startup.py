"""cpu/startup.py: training without torch's compiler."""

import subprocess
import sys


def test_leave_out_compiler_trains_without_importing_it() -> None:
    """Lost otherwise: 1.25 s a stage. Deterministic algorithms, an embedding drawn on the meta device or an optimizer
    import it; a torch that marks its optimizers differently fails here.
    """
    code = (
        "import sys, torch; from pipeline import config; from pipeline.model import device; "
        "from pipeline.model.config import ModelConfig; from pipeline.model.gpt import GPT; "
        "from pipeline.optimizers import muon; "
        "params = config.load(); device.set_up(params.compute); "
        "shape = ModelConfig(**params.pretrain.model.model_dump(), vocab_size=300); "
        "GPT(shape, None); model = GPT(shape, torch.Generator().manual_seed(1)); "
        "names, weights = zip(*model.named_parameters()); "
        "settings = muon.Settings(**params.pretrain.part('optimizer', 'pretrain').model_dump()); "
        "optimizer = muon.build(settings, [{'params': weights, 'names': names, 'factor': 1.0, 'begins': 0.0}]); "
        "model(torch.zeros(1, 4, dtype=torch.long)).sum().backward(); "
        "optimizer.step(); optimizer.zero_grad(); optimizer.load_state_dict(optimizer.state_dict()); "
        "assert torch.are_deterministic_algorithms_enabled(); "
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
