"""What the help of the commands says."""

DESCRIPTION = "Spatial domains from gene expression, spot coordinates and the tissue image."
EXAMPLES = """\
examples:
  skiehercl demo
  skiehercl info section.h5ad
  skiehercl fit section.h5ad --n-clusters 7 --out labelled.h5ad --plot domains.png
  skiehercl fit spaceranger/outs -k 4-8 --out labelled.h5ad --save-model model.safetensors
  skiehercl fit one.h5ad two.h5ad -k 7 --out-dir labelled
  skiehercl predict model.safetensors other.h5ad --out other_labelled.h5ad
  skiehercl report labelled.h5ad --out report.html

"python -m skiehercl" is the same command. "skiehercl fit --help" explains every option.
"""
FIT = """\
Find the spatial domains of a section and write it with them. Counts are recognised and
preprocessed; ready features, such as principal components, are used as they are. A tissue image
is used if the section has one. Several sections are fitted together, so that a domain has one
name in all of them, and written one by one; what an interrupted run has written isn't made again.

Added to the section:
  obs['domain_pred']              the domain of each spot, "0", "1", ..., the largest first
  obs['domain_pred_confidence']   the probability of that domain
  obsm['X_iehercl']               the embedding
  obsm['X_iehercl_attention_*']   attention weights within each modality and across them
  obsm['X_image']                 image features, if they were computed
  uns['domain_pred']              the parameters; uns['domain_pred_colors'] the colours
--key names another entry than 'domain_pred'.
"""
STATUS = """\
exit status: 0 done; 2 bad input, too little memory or disk; 3 all written, but stdout failed (a
reader who has read enough, as of "| head", is no failure; a closed stderr never is); 1 a bug; 130
Ctrl-C; 143 SIGTERM. All but 0 are told in one line on stderr, which names the files written until
then; if it names none, nothing was.
"""
FIT_EXAMPLES = f"""\
examples:
  skiehercl fit section.h5ad --n-clusters 7 --out labelled.h5ad --plot domains.png
  skiehercl fit spaceranger/outs -k 7 --out labelled.h5ad
  skiehercl fit section.h5ad -k 4-8 --out labelled.h5ad --layer counts --truth layer --json
  skiehercl fit section.h5ad -k 7 --out labelled.h5ad --backbone resnet50 --weights resnet50.pth
  skiehercl fit one.h5ad two.zarr -k 7 --out-dir labelled

{STATUS}"""
PREDICT = """\
Find a fitted model's domains in another section: the same domain has the same name and colour.
Without --out, a table of spot, domain and confidence is printed on stdout.
"""
REPORT = """\
Make one HTML page of a labelled section, to look at and to read, without network: the domains on
the tissue with layers, zoom and lasso, marker genes, borders, the choice of K, the image's verdict,
and what it takes to repeat the fit. "skiehercl fit --report FILE" makes it right away.
"""
